import json

from promptflow.core import tool


@tool
def refine(original: str) -> str:
    return json.loads(json.dumps(original.partition("code:")[2].strip()))
