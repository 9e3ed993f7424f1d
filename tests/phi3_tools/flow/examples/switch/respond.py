from promptflow.core import tool


@tool
def respond(order: str, product: str, advice: str) -> str:
    return order or product or advice or "Please ask again."
