from promptflow.core import tool


@tool
def summarize(text: str, words: int) -> str:
    return f"{words + 1}: {text}"
