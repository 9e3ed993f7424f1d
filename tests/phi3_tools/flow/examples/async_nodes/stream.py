from promptflow.core import tool


@tool
async def stream(count: int):
    for number in range(count):
        yield f"{number} "
