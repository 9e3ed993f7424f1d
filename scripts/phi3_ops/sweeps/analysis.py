"""Turn the runs of a sweep into its results: means, differences from the baseline, and the winner."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..comparison import (
    CONFIDENCE,
    Comparison,
    ComparisonSettings,
    LineScores,
    Metric,
    bootstrap_interval,
    compare_runs,
    count_outcomes,
    sign_test,
)
from .plan import SweepPlan
from .results import (
    BETTER,
    UNCLEAR,
    WORSE,
    CellDifference,
    CellResult,
    CellScore,
    Decision,
    SweepResult,
)
from .runner import CellRun
from .statistics import enough_resamples, holm, pareto_front, percentile, simultaneous_confidence

SIGNIFICANT = 1 - CONFIDENCE


def analyse(
    plan: SweepPlan, runs: Sequence[CellRun], *, in_flight: int, seed: int = 1
) -> SweepResult:
    """Return the results of a sweep.

    Args:
        plan: the sweep.
        runs: the run of each cell, in the order of the cells.
        in_flight: maximum number of lines that ran at once.
        seed: seed of the bootstrap.

    Raises:
        OpsError: every line of every cell failed, or no answer has one of the scores.
    """
    settings = ComparisonSettings(metrics=plan.config.metrics, by=(), seed=seed)
    comparison = compare_runs([run.scored for run in runs], plan.thresholds, settings)
    metrics = {name: comparison.metrics[name] for name in plan.config.metrics}
    cells = [
        _cell_result(plan, run, scores, list(metrics), seed)
        for run, scores in zip(runs, comparison.line_scores)
    ]
    return SweepResult(
        name=plan.config.name,
        data=comparison.data.path,
        data_sha256=comparison.data.sha256,
        lines=comparison.data.lines,
        metrics={name: bool(metric.higher_is_better) for name, metric in metrics.items()},
        confidence=CONFIDENCE,
        in_flight=in_flight,
        currency=plan.config.currency,
        cells=cells,
        differences=_differences(comparison, seed),
        decision=_decide(plan, comparison, cells, seed),
        pareto=_pareto(cells, plan.config.metrics[0], metrics[plan.config.metrics[0]]),
    )


def _cell_result(
    plan: SweepPlan, run: CellRun, scores: LineScores, metrics: Sequence[str], seed: int
) -> CellResult:
    cell, usage = run.cell, list(run.usage.values())
    prompt_tokens = sum(line.prompt_tokens for line in usage) or None
    completion_tokens = sum(line.completion_tokens for line in usage) or None
    seconds = [line.seconds for line in usage]
    return CellResult(
        letter=cell.letter,
        prompt=cell.prompt,
        connection=cell.connection,
        parameters=dict(cell.parameters),
        run=run.run,
        evaluations=list(run.evaluations),
        answered=int((~scores.failed).sum()),
        failed=int(scores.failed.sum()),
        scores={name: _cell_score(scores, name, seed) for name in metrics},
        latency_p50=percentile(seconds, 50),
        latency_p95=percentile(seconds, 95),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost=plan.config.cost(cell.connection, prompt_tokens, completion_tokens),
    )


def _cell_score(scores: LineScores, name: str, seed: int) -> CellScore:
    values = scores.scores[name]
    known = values[~np.isnan(values)]
    low, high = bootstrap_interval(known, seed=seed)
    unscored = int((np.isnan(values) & ~scores.failed).sum())
    mean = float(known.mean()) if known.size else None
    return CellScore(int(known.size), mean, _finite(low), _finite(high), unscored)


# -- differences from the baseline -----------------------------------------------------------------


def _differences(comparison: Comparison, seed: int) -> list[CellDifference]:
    """Return every score of every cell against the baseline, corrected for all these comparisons."""
    pairs = [
        (entry, entry.result, outcomes)
        for entry in comparison.comparisons
        if (outcomes := entry.result.outcomes)
    ]
    corrected = holm([outcomes.p_value for _, _, outcomes in pairs])
    scores = dict(zip((run.letter for run in comparison.runs), comparison.line_scores))
    baseline = comparison.line_scores[0]
    differences = []
    for (entry, result, outcomes), p_value in zip(pairs, corrected):
        metric = comparison.metrics[entry.metric]
        pair = _Pair(baseline, scores[entry.run], entry.metric, metric)
        low, high = pair.interval(len(pairs), seed)
        differences.append(
            CellDifference(
                entry.run,
                entry.metric,
                result.n,
                *(result.difference, result.low, result.high),
                *(_finite(low), _finite(high)),
                *(outcomes.wins, outcomes.losses, outcomes.ties),
                outcomes.p_value,
                p_value,
                pair.verdict(low, high, p_value),
            )
        )
    return differences


@dataclass(frozen=True)
class _Pair:
    """One score of two cells."""

    before: LineScores
    after: LineScores
    name: str
    metric: Metric

    @property
    def difference(self) -> np.typing.NDArray[np.float64]:
        """The differences of the lines that have the score in both cells."""
        difference = self.after.scores[self.name] - self.before.scores[self.name]
        return difference[~np.isnan(difference)]

    @property
    def p_value(self) -> float:
        wins, losses, _ = count_outcomes(self.difference)
        return sign_test(wins, losses)

    def interval(self, comparisons: int, seed: int) -> tuple[float, float]:
        """Return the interval of the difference, corrected for a number of comparisons."""
        confidence = simultaneous_confidence(comparisons)
        resamples = enough_resamples(confidence)
        return bootstrap_interval(
            self.difference, confidence=confidence, resamples=resamples, seed=seed
        )

    def verdict(self, low: float, high: float, corrected_p_value: float) -> str:
        """Return whether the second cell is better. Both the interval and the test have to say so."""
        if not self.metric.higher_is_better:
            low, high = -high, -low
        if corrected_p_value >= SIGNIFICANT or not (low > 0 or high < 0):
            return UNCLEAR
        return BETTER if low > 0 else WORSE


# -- the winner ------------------------------------------------------------------------------------


def _decide(
    plan: SweepPlan, comparison: Comparison, cells: Sequence[CellResult], seed: int
) -> Decision:
    """Decide which cell is better than every other one in the first metric.

    The best cell is chosen after looking at the results. So the intervals and the p-values are corrected
    for all pairs of cells, not only for those with the best cell.
    """
    name = plan.config.metrics[0]
    metric = comparison.metrics[name]
    pairs = list(itertools.combinations(range(len(cells)), 2))
    means = {index: cell.scores[name].mean for index, cell in enumerate(cells)}
    known = {index: mean for index, mean in means.items() if mean is not None}
    if not known:
        reason = f"No winner: no cell has the score {name}."
        return Decision(None, None, len(pairs), reason)
    choose = max if metric.higher_is_better else min
    best = choose(known, key=known.__getitem__)
    if problem := _incomplete(plan, cells, name):
        return Decision(None, cells[best].letter, len(pairs), f"No winner: {problem}.")
    scores = comparison.line_scores
    p_values = holm([_Pair(scores[a], scores[b], name, metric).p_value for a, b in pairs])
    rivals = []
    for (first, second), p_value in zip(pairs, p_values):
        if best not in (first, second):
            continue
        other = second if best == first else first
        pair = _Pair(scores[other], scores[best], name, metric)
        # The interval takes long, and is not needed if the test already says `unclear`.
        is_unclear = p_value >= SIGNIFICANT
        if is_unclear or pair.verdict(*pair.interval(len(pairs), seed), p_value) != BETTER:
            rivals.append(cells[other].letter)
    return _decision(name, metric, cells[best], known[best], rivals, len(pairs))


def _decision(
    name: str, metric: Metric, best: CellResult, mean: float, rivals: Sequence[str], pairs: int
) -> Decision:
    word = "highest" if metric.higher_is_better else "lowest"
    if rivals:
        others = _in_words(rivals)
        interval, show = (
            ("interval of its difference", "does")
            if len(rivals) == 1
            else ("intervals of its differences", "do")
        )
        reason = (
            f"No winner: {best.letter} has the {word} {name} ({mean:.4g}), but the corrected {interval} "
            f"from {others} {show} not show that it is better."
        )
        return Decision(None, best.letter, pairs, reason)
    reason = (
        f"Winner: {best.letter} has the {word} {name} ({mean:.4g}), and is better than every other cell "
        f"after correction for {pairs} {'comparison' if pairs == 1 else 'comparisons'}."
    )
    return Decision(best.letter, best.letter, pairs, reason)


def _incomplete(plan: SweepPlan, cells: Sequence[CellResult], name: str) -> str | None:
    """Return why too few lines have a score to name a winner, or None."""
    thresholds = plan.thresholds
    failed = [
        f"{cell.failed:,} of {plan.lines:,} lines of {cell.letter}"
        for cell in cells
        if cell.failed > plan.lines * thresholds.max_failed
    ]
    if failed:
        return f"{_in_words(failed)} failed; {thresholds.max_failed:.0%} is accepted"
    for cell in cells:
        unscored = cell.scores[name].unscored
        if unscored > plan.lines * thresholds.max_unparsed:
            accepted = f"{thresholds.max_unparsed:.0%} is accepted"
            return (
                f"{unscored:,} of {plan.lines:,} lines of {cell.letter} have no {name}; {accepted}"
            )
    return None


def _in_words(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


# -- the Pareto front ------------------------------------------------------------------------------


def _pareto(cells: Sequence[CellResult], name: str, metric: Metric) -> dict[str, list[str]]:
    fronts = {}
    sign = 1 if metric.higher_is_better else -1
    for axis, field in (("cost", "cost"), ("latency", "latency_p50")):
        points = {
            cell.letter: (expense, sign * mean)
            for cell in cells
            if (expense := getattr(cell, field)) is not None
            and (mean := cell.scores[name].mean) is not None
        }
        if points:
            letters = list(points)
            fronts[axis] = [letters[index] for index in pareto_front(list(points.values()))]
    return fronts


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
