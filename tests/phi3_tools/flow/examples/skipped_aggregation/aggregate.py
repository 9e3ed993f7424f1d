from promptflow.core import log_metric, tool


@tool
def aggregate(a: list, b: list) -> dict:
    log_metric("lines", len(a))
    return {"a": a, "b": b}
