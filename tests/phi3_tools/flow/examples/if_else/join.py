from promptflow.core import tool


@tool
def join(answer: str = "", refusal: str = "") -> str:
    return answer or refusal
