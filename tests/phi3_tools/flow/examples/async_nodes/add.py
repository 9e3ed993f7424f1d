from promptflow.core import tool


@tool
async def add(a: int, b: int) -> int:
    return a + b
