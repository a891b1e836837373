from decimal import Decimal


async def later():
    return "awaited"


def handler(event, context):
    kind = event["kind"]
    if kind == "awaitable":
        return later()
    return {"bytes": b"\x00\xff raw", "decimal": {"a": Decimal("2"), "b": Decimal("2.5")}, "tuple": (1, "a")}[kind]
