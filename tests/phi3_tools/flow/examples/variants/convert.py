from promptflow.core import tool


@tool
def convert(text: str) -> dict:
    if "none" in text:
        return {"category": "None"}
    return {"category": text[:12], "evidence": [text[-1]]}
