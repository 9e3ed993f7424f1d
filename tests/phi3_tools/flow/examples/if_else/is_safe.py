from promptflow.core import tool


@tool
def is_safe(text: str) -> bool:
    return "unsafe" not in text
