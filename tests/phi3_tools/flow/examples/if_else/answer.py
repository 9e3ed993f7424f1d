from promptflow.core import tool


@tool
def answer(request: str) -> str:
    return f"Answer to: {request}"
