"""Log the summary of all verdicts as the metrics of the run."""

from promptflow.core import log_metric, tool

from phi3_tools.evaluation import summarise


@tool
def aggregate(lines: list) -> dict:
    metrics = summarise([line and line["verdicts"] for line in lines])
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
