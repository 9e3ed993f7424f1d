from promptflow.core import tool


@tool
def fetch(url: str, fetch_url: bool) -> str:
    return f"the text of {url}" if fetch_url else ""
