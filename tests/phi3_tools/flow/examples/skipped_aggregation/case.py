from promptflow.core import tool


@tool
def case(text: str) -> str:
    return text * 2
