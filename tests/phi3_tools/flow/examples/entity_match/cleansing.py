from promptflow.core import tool


@tool
def cleansing(entities: str) -> list[str]:
    parts = [part.strip(" .\"'\t\n") for part in entities.split(",")]
    return [part for part in parts if part]
