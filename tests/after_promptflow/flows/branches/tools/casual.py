import asyncio

from promptflow.core import tool


@tool
async def casual(text: str, times: int) -> str:
    await asyncio.sleep(0)
    return " ".join([text] * times)
