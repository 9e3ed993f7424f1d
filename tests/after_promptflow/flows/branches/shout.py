from promptflow.core import tool


@tool
def shout(text: str):
    return text.upper()
