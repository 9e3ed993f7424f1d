from promptflow.core import tool


@tool
def refuse(request: str) -> str:
    return "I cannot answer this."
