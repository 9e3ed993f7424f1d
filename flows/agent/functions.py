"""The functions that the agent may call. Replace them with yours."""

import ast
import operator
from datetime import date

ORDERS = {
    "A-1001": {"product": "desk lamp", "quantity": 2, "price": 34.5, "arrives_on": "2026-03-09"},
    "A-1002": {"product": "kettle", "quantity": 1, "price": 49.0, "arrives_on": "2026-03-12"},
    "A-1003": {"product": "umbrella", "quantity": 12, "price": 11.25, "arrives_on": "2026-05-03"},
}
OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
MAX_CHARACTERS = 200  # of an expression


def find_order(order_id: str) -> dict:
    """Return an order: its product, quantity, price of one piece, and day of arrival."""
    if order_id not in ORDERS:
        raise ValueError(f"the order {order_id} does not exist")
    return ORDERS[order_id]


def days_between(first: str, second: str) -> int:
    """Return the number of days from one date to another; dates are YYYY-MM-DD."""
    return (date.fromisoformat(second) - date.fromisoformat(first)).days


def calculate(expression: str) -> float:
    """Return the value of an arithmetic expression with +, -, *, / and brackets."""
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"an expression may have {MAX_CHARACTERS} characters")
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand))
    raise ValueError("use numbers, +, -, *, / and brackets only")
