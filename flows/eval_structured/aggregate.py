"""Log the means over the lines that have each score, with their standard errors, as the run's metrics."""

from phi3_tools.evaluation import mean_of
from phi3_tools.flow import log_metric, tool

SCORES = ("valid_json", "schema_match", "field_exact", "field_f1", "tool_call_match")


@tool
def aggregate(scores: list) -> dict:
    # Which of the scores a failed line lacks is not known here, so it is counted and not part of the
    # means. `phi3 compare` counts it as 0.
    scored = [line for line in scores if line]
    metrics = {"lines": len(scores), "failures": len(scores) - len(scored)}
    for name in SCORES:
        values = [line[name] for line in scored if line[name] is not None]
        if values:
            mean = mean_of(values)
            metrics |= {name: mean.mean, f"{name}_stderr": mean.stderr, f"{name}_lines": mean.n}
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
