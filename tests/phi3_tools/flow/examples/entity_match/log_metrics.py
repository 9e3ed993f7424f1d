from promptflow.core import log_metric, tool


@tool
def log_metrics(match_counts: list[dict]):
    exact = sum(item["exact"] for item in match_counts)
    log_metric("exact_match_rate", exact / sum(item["total"] for item in match_counts))
