from promptflow.core import tool


@tool
def execute(code_snippet: str) -> str:
    return str(eval(code_snippet, {"__builtins__": {}}))
