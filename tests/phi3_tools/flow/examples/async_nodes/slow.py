import asyncio

from promptflow.core import tool


@tool
async def slow(count: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    if count < 0:
        raise ValueError(f"{count} is negative")
    return count * 10
