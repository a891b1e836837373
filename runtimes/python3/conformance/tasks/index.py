"""What an async handler may expect of its surroundings, from its first step on."""
import asyncio


async def child(tag):
    await asyncio.sleep(0)
    print("child", tag)
    return tag


async def handler(event, context):
    tag = event["tag"]
    assert asyncio.current_task() is not None
    if event.get("forever"):
        await asyncio.Event().wait()
    async with asyncio.timeout(30):
        first = asyncio.create_task(child(tag))
        await asyncio.to_thread(print, "to_thread", tag)
        async with asyncio.TaskGroup() as group:
            group.create_task(child(tag))
        return await first
