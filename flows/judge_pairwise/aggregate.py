"""Log wins, losses and ties as the metrics of the run."""

from promptflow.core import log_metric, tool

from phi3_tools.evaluation import summarise_pairs


@tool
def aggregate(lines: list) -> dict:
    metrics = summarise_pairs(lines)
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
