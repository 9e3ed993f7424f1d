"""Log wins, losses and ties as the metrics of the run."""

from phi3_tools.evaluation import summarise_pairs
from phi3_tools.flow import log_metric, tool


@tool
def aggregate(lines: list) -> dict:
    metrics = summarise_pairs(lines)
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
