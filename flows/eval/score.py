"""Score one line."""

from phi3_tools.evaluation import line_scores
from phi3_tools.flow import tool


@tool
def score(answer: str, ground_truth: str) -> dict:
    # The texts are passed on, because the aggregation takes its input from this node only.
    return {
        **line_scores(answer, ground_truth),
        "answer": answer,
        "ground_truth": ground_truth,
    }
