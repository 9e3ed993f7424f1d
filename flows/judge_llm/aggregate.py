"""Log the summary of all verdicts as the metrics of the run."""

from phi3_tools.evaluation import summarise
from phi3_tools.flow import log_metric, tool


@tool
def aggregate(lines: list) -> dict:
    metrics = summarise([line and line["verdicts"] for line in lines])
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
