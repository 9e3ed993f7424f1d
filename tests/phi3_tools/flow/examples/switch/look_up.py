from promptflow.core import tool


@tool
def look_up(query: str, catalog: str, limit: int = 3) -> str:
    return f"{catalog}[:{limit}]: {query}"
