from promptflow.core import tool


@tool
def fast(count: int) -> int:
    return count + 1
