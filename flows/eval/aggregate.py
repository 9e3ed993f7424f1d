"""Means over the lines, logged as the run's metrics."""

from promptflow.core import log_metric, tool

from phi3_tools.metrics import mean_of

METRICS = ("exact_match", "token_f1")


@tool
def aggregate(scores: list) -> dict:
    # A line whose score failed comes as None: it is a line, and counts 0. Lines whose *answer* failed
    # never get here; `phi3` counts those against the data file.
    scored = [line for line in scores if line]
    failures = len(scores) - len(scored)
    metrics = {"lines": len(scores), "failures": failures}
    for name in METRICS:
        mean = mean_of((line[name] for line in scored), failures=failures)
        metrics |= {name: mean.mean, f"{name}_stderr": mean.stderr}
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
