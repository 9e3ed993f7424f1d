"""Scores of one line."""

from promptflow.core import tool

from phi3_tools.metrics import exact_match, token_f1


@tool
def score(answer: str, ground_truth: str) -> dict:
    return {
        "exact_match": exact_match(answer, ground_truth),
        "token_f1": token_f1(answer, ground_truth),
    }
