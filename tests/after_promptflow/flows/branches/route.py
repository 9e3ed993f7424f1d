from helper import kind_of
from promptflow.core import tool


@tool
def route(text: str, count: int) -> dict:
    if text == "boom":
        raise ValueError("no such text")
    return {"kind": kind_of(text), "sizes": [{"length": len(text) * count}]}
