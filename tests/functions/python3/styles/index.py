"""Handlers of every kind that Python has."""
import asyncio


async def coroutine(event, context):
    await asyncio.sleep(0)
    return "from a coroutine"


def plain(event, context):
    return "from a function"


class Callable:
    def __call__(self, event, context):
        return "from an object"


callable_object = Callable()


async def failing(event, context):
    raise KeyError("missing")
