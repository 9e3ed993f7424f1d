from promptflow.core import tool


@tool
def example() -> str:
    return "# for example: 1 + 1"
