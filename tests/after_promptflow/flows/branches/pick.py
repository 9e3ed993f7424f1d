from promptflow.core import tool


@tool
def pick(formal: str = "no letter", casual: str = "no chat", ending: str = ""):
    return f"{formal}|{casual}{ending}"
