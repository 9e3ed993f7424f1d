from promptflow.core import tool


@tool
def collect(a: str, b: str = "the default") -> str:
    return f"{a} {b}"
