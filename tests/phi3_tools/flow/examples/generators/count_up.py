from promptflow.core import tool


@tool
def count_up(count: int):
    yield from range(count)
