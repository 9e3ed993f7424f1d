"""Log the means over all lines, with their standard errors, as the metrics of the run."""

from phi3_tools.evaluation import corpus_scores, mean_of
from phi3_tools.flow import log_metric, tool

METRICS = ("exact_match", "token_f1", "rouge_l", "bleu", "chrf")


@tool
def aggregate(scores: list) -> dict:
    # A failed line that arrives as None counts as 0. Prompt flow drops most failed lines before this
    # node; `phi3 compare` counts those by the lines of the data file.
    scored = [line for line in scores if line]
    failures = len(scores) - len(scored)
    means = {name: mean_of((line[name] for line in scored), failures=failures) for name in METRICS}
    # A missing answer has no length.
    means["length"] = mean_of(line["length"] for line in scored)
    metrics = {"lines": len(scores), "failures": failures}
    for name, mean in means.items():
        metrics |= {name: mean.mean, f"{name}_stderr": mean.stderr}
    metrics |= corpus_scores(
        *([line[key] for line in scored] for key in ("answer", "ground_truth"))
    )
    for name, value in metrics.items():
        log_metric(name, value)
    return metrics
