"""Each call waits until `n` calls are inside: it only ever answers if they run at the same time."""
import asyncio

waiters = []
inside = 0


async def handler(event, context):
    global inside
    print("before", event["tag"])
    inside += 1
    for waiter in waiters:
        waiter.set()
    mine = asyncio.Event()
    waiters.append(mine)
    while inside < event["n"]:
        await mine.wait()
        mine.clear()
    waiters.remove(mine)
    print("after", event["tag"])
    return event["tag"]
