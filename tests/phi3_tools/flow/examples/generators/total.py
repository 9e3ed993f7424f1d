from promptflow.core import tool


@tool
def total(numbers) -> int:
    return sum(numbers)
