import asyncio


async def handler(event, context):
    await asyncio.sleep(event["ms"] / 1000)
    return event["ms"]
