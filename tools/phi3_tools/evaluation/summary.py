"""The metrics of a batch of verdicts or preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .judge import SCORED, SKIPPED, TIE, UNPARSED, Preference, Verdict
from .metrics import mean_of
from .rubrics import ANSWER, ANSWER_B, BEST, WORST


def summarise(lines: Sequence[Mapping[str, Verdict] | None]) -> dict[str, float]:
    """Return the metrics of a batch of verdicts. For each rubric NAME these are

    | metric | meaning |
    |---|---|
    | `NAME` | mean over the scored lines; missing if no line is scored |
    | `NAME_stderr` | standard error of the mean |
    | `NAME_low`, `NAME_high` | the mean if every unscored line had the worst, or the best score |
    | `NAME_scored`, `NAME_unparsed`, `NAME_skipped` | number of lines |
    | `NAME_unparsed_rate` | share of unparsed lines among the judged lines |

    and `lines`, `failures`, `judge_calls`, `judge_tokens`. Unscored lines are the unparsed ones and the
    failures, whose score is not known. Skipped lines do not count for a rubric.

    Args:
        lines: for each line the verdict of each rubric, by name; None for a line that failed.
    """
    judged = [line for line in lines if line]
    failures = len(lines) - len(judged)
    metrics: dict[str, float] = {"lines": len(lines), "failures": failures}
    for name in dict.fromkeys(name for line in judged for name in line):
        verdicts = [line[name] for line in judged if name in line]
        metrics |= _with_prefix(name, _rubric_metrics(verdicts, failures))
    return metrics | _cost([verdict for line in judged for verdict in line.values()])


def summarise_pairs(lines: Sequence[Preference | None]) -> dict[str, float]:
    """Return the metrics of a batch of comparisons, from the side of `answer`.

    `wins`, `losses`, `ties`, `unparsed`, `skipped`, `scored` and `disagreements` are numbers of lines.
    `win_rate` is over the scored lines, and a tie counts as half a win. `win_rate_low` and
    `win_rate_high` are the rates if every unparsed or failed line were a loss, or a win.
    `disagreement_rate` is the share of scored lines whose two orders gave different winners. Rates
    without lines are missing.

    Args:
        lines: the preference of each line; None for a line that failed.
    """
    judged = [line for line in lines if line]
    failures = len(lines) - len(judged)
    status_counts = _status_counts(judged)
    winners = [line["winner"] for line in judged]
    disagreements = sum(line["agreed"] is False for line in judged)
    metrics: dict[str, float] = {"lines": len(lines), "failures": failures, **status_counts}
    metrics |= {"wins": winners.count(ANSWER), "losses": winners.count(ANSWER_B)}
    metrics |= {"ties": winners.count(TIE), "disagreements": disagreements}
    points = [{ANSWER: 1.0, TIE: 0.5, ANSWER_B: 0.0}[winner] for winner in winners if winner]
    bounds = _mean_and_bounds(points, status_counts[UNPARSED], failures, (0.0, 1.0))
    metrics |= _with_prefix("win_rate", bounds)
    if points:
        metrics["disagreement_rate"] = disagreements / len(points)
    return metrics | _unparsed_rate(status_counts) | _cost(judged)


def _rubric_metrics(verdicts: Sequence[Verdict], failures: int) -> dict[str, float]:
    status_counts = _status_counts(verdicts)
    scores = [v["score"] for v in verdicts if v["score"] is not None]
    bounds = _mean_and_bounds(scores, status_counts[UNPARSED], failures, (WORST, BEST))
    return bounds | status_counts | _unparsed_rate(status_counts)


def _mean_and_bounds(
    scores: Sequence[float], unparsed: int, failures: int, scale: tuple[float, float]
) -> dict[str, float]:
    """Return mean and standard error of the scores, and the means with worst and best missing scores."""
    metrics: dict[str, float] = {}
    if scores:
        mean = mean_of(scores)
        metrics |= {"": mean.mean, "stderr": mean.stderr}
    if scores or unparsed:  # otherwise the judge was never asked
        for name, score in zip(("low", "high"), scale):
            metrics[name] = mean_of([*scores, *[score] * (unparsed + failures)]).mean
    return metrics


def _status_counts(verdicts: Sequence[Verdict] | Sequence[Preference]) -> dict[str, int]:
    statuses = [verdict["status"] for verdict in verdicts]
    return {status: statuses.count(status) for status in (SCORED, UNPARSED, SKIPPED)}


def _unparsed_rate(status_counts: Mapping[str, int]) -> dict[str, float]:
    asked = status_counts[SCORED] + status_counts[UNPARSED]
    return {"unparsed_rate": status_counts[UNPARSED] / asked} if asked else {}


def _with_prefix(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{suffix}" if suffix else name: value for suffix, value in metrics.items()}


def _cost(verdicts: Sequence[Verdict] | Sequence[Preference]) -> dict[str, float]:
    reported = [verdict["usage"]["total_tokens"] for verdict in verdicts if verdict["usage"]]
    cost: dict[str, float] = {"judge_calls": sum(verdict["calls"] for verdict in verdicts)}
    return cost | ({"judge_tokens": sum(reported)} if reported else {})
