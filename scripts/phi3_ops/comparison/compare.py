"""Compare runs line by line: the first run is the baseline of every other run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OpsError
from ..files import read_jsonl
from ..hashing import file_sha256
from ..runs import ScoredRun
from .gates import (
    ALL_METRICS,
    INCONCLUSIVE,
    GateVerdict,
    decide_gate,
    describe_failures,
    resolve_margins,
)
from .paired_stats import (
    CONFIDENCE,
    RESAMPLES,
    TIE,
    Array,
    BoolArray,
    bootstrap_interval,
    count_outcomes,
    sample_mean,
    sign_test,
)
from .results import (
    ComparedData,
    Comparison,
    FactDifference,
    LineScores,
    MetricComparison,
    Outcomes,
    PairedResult,
    RunSummary,
    ScoreMean,
    SliceComparison,
    StatisticsSettings,
)
from .thresholds import Metric, Thresholds

DEFAULT_SLICE_COLUMNS = ("kind", "tags")  # taken where the data has them
MAX_SLICES = 50  # per column
RUN_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ComparisonSettings:
    """Which scores are compared, and how.

    Attributes:
        metrics: names of the scores; if empty, all scores that the runs have in common.
        by: columns of the data whose values (or tags, in a list) make the slices; None means
            `DEFAULT_SLICE_COLUMNS`.
        gates: score -> margin, where None means the margin in the thresholds. The name `all` means every
            score that has a margin there.
        seed: seed of the bootstrap.
        resamples: number of bootstrap samples.
    """

    metrics: Sequence[str] = ()
    by: Sequence[str] | None = None
    gates: Mapping[str, float | None] = field(default_factory=dict)
    seed: int = 1
    resamples: int = RESAMPLES


def compare_runs(
    runs: Sequence[ScoredRun],
    thresholds: Thresholds = Thresholds(),
    settings: ComparisonSettings = ComparisonSettings(),
) -> Comparison:
    """Compare runs over the same data.

    Args:
        runs: two or more runs; the first is the baseline.
        thresholds: directions, ranges and margins of the scores.
        settings: which scores are compared, and how.

    Raises:
        OpsError: the runs used different data or have no score in common, or a score or column that the
            settings name does not exist.
    """
    sha256 = _common_data_hash(runs)
    rows = read_jsonl(runs[0].data)
    if not rows:
        raise OpsError(f"{runs[0].data} has no lines", "There is nothing to compare.")
    names = _metric_names(runs, thresholds, settings)
    margins = resolve_margins(settings.gates, names, thresholds)
    samples = _samples(runs, len(rows), names, thresholds)
    line_scores = [_line_scores(run, len(rows), names, thresholds, samples) for run in runs]
    pairing = _Pairing(thresholds, settings, margins, _find_slices(rows, settings.by))
    return Comparison(
        data=ComparedData(str(runs[0].data), sha256, len(rows)),
        settings=StatisticsSettings(
            CONFIDENCE,
            settings.resamples,
            settings.seed,
            thresholds.max_unparsed,
            thresholds.max_failed,
        ),
        metrics={name: thresholds.metric(name) for name in names},
        runs=_run_summaries(line_scores),
        differences=_differing_facts(runs),
        comparisons=[
            pairing.compare(letter, name, line_scores[0], other)
            for letter, other in zip(RUN_LETTERS[1:], line_scores[1:])
            for name in names
        ],
        rows=rows,
        line_scores=line_scores,
    )


# -- which data and scores are compared ------------------------------------------------------------


def _common_data_hash(runs: Sequence[ScoredRun]) -> str:
    """Return the SHA-256 of the data file that all runs used."""
    if not 2 <= len(runs) <= len(RUN_LETTERS):
        raise OpsError(f"{len(runs)} runs given", f"Give 2 to {len(RUN_LETTERS)}.")
    digests = [file_sha256(run.data) for run in runs]
    for run, digest in zip(runs, digests):
        if digest != digests[0]:
            raise OpsError(
                f"{runs[0].name} ran over {runs[0].data}, and {run.name} over {run.data}",
                "These files differ; only runs over the same data can be compared line by line.",
            )
    return digests[0]


def _metric_names(
    runs: Sequence[ScoredRun], thresholds: Thresholds, settings: ComparisonSettings
) -> list[str]:
    """Return the names of the scores to compare, in the order of the thresholds."""
    common = _common_scores(runs)
    ranks = {name: rank for rank, name in enumerate(thresholds.metrics)}
    common.sort(key=lambda name: ranks.get(name, len(ranks)))
    requested = {*settings.metrics, *settings.gates} - {ALL_METRICS}
    for name in (*settings.metrics, *settings.gates):
        if name in requested and name not in common:
            available = ", ".join(common) or "none"
            raise OpsError(f"the runs have no score {name!r} in common", f"They have: {available}.")
    if not common:
        raise OpsError("the runs have no score in common", "Score both with the same flow.")
    return [name for name in common if name in requested] if settings.metrics else common


def _common_scores(runs: Sequence[ScoredRun]) -> list[str]:
    """Return the names of the scores that all runs have."""
    if not any(run.scored.rows for run in runs):
        run_names = " and ".join(run.name for run in runs)
        raise OpsError(f"all lines of {run_names} failed", "There is nothing to compare.")
    names = _numeric_columns(runs)
    common = list(names)
    for run in runs:
        columns = {column for row in run.scored.rows.values() for column in row}
        if run.scored.rows and columns.isdisjoint(names):
            raise OpsError(
                f"the run {run.name} has no scores",
                f"Score it first: pf run create --flow flows/eval --data {run.data} --run {run.name}"
                " --column-mapping answer='${run.outputs.answer}' ground_truth='${data.ground_truth}'",
            )
        # A run in which every line failed has no columns.
        common = [name for name in common if name in columns or not run.scored.rows]
    return common


def _numeric_columns(runs: Sequence[ScoredRun]) -> list[str]:
    """Return the columns that contain a number in at least one line of one run."""
    names: dict[str, None] = {}
    for run in runs:
        for row in run.scored.rows.values():
            names |= {name: None for name, value in row.items() if _number(value) is not None}
    return list(names)


def _number(value: object) -> float | None:
    """Return a finite number as a float, None for anything else."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def _samples(
    runs: Sequence[ScoredRun], lines: int, names: Sequence[str], thresholds: Thresholds
) -> dict[str, BoolArray]:
    """Return which lines are in the sample of each sampled score: those that have it in some run."""
    samples = {}
    for name in names:
        if thresholds.metric(name).sampled:
            samples[name] = np.zeros(lines, dtype=bool)
            for run in runs:
                scored = [
                    line
                    for line, row in run.scored.rows.items()
                    if _number(row.get(name)) is not None
                ]
                samples[name][scored] = True
    return samples


def _line_scores(
    run: ScoredRun,
    lines: int,
    names: Sequence[str],
    thresholds: Thresholds,
    samples: Mapping[str, BoolArray],
) -> LineScores:
    # Without a run of the answers, a line without scores counts as failed.
    answered = run.asked.rows if run.asked else run.scored.rows
    failed = np.ones(lines, dtype=bool)
    failed[list(answered)] = False
    scores = {name: _score_values(run, name, failed, thresholds.metric(name)) for name in names}
    for name, sample in samples.items():
        scores[name][~sample] = np.nan
    return LineScores(run, scores, failed, samples)


def _score_values(run: ScoredRun, name: str, failed: BoolArray, metric: Metric) -> Array:
    values = np.full(failed.size, np.nan)
    for line, row in run.scored.rows.items():
        value = _number(row.get(name))
        values[line] = np.nan if value is None else value
    values[failed] = np.nan if metric.worst is None else metric.worst
    return values


@dataclass(frozen=True)
class _Slice:
    """The lines whose column has a value."""

    by: str
    value: str
    lines: NDArray[np.int64]


def _find_slices(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> list[_Slice]:
    """Return the slices of the data; a list in a column puts a line into several slices."""
    slices = []
    for column in DEFAULT_SLICE_COLUMNS if columns is None else columns:
        lines: dict[str, list[int]] = {}
        for line, row in enumerate(rows):
            values = row.get(column)
            for value in values if isinstance(values, list) else [values]:
                if value is not None:
                    lines.setdefault(str(value), []).append(line)
        if columns is not None and not lines:
            raise OpsError(f"the data has no column {column!r}", f"It has: {', '.join(rows[0])}.")
        if len(lines) > MAX_SLICES:
            raise OpsError(
                f"the column {column!r} has {len(lines)} different values",
                f"A column for slices has at most {MAX_SLICES}; --by selects another column.",
            )
        slices += [_Slice(column, value, np.array(lines[value])) for value in sorted(lines)]
    return slices


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairing:
    """Compares one score of a run with the baseline."""

    thresholds: Thresholds
    settings: ComparisonSettings
    margins: Mapping[str, float]
    slices: Sequence[_Slice]

    def compare(
        self, letter: str, name: str, baseline: LineScores, other: LineScores
    ) -> MetricComparison:
        before, after = baseline.scores[name], other.scores[name]
        metric = self.thresholds.metric(name)
        result = self._result(before, after, metric)
        unscored = max(run.unscored_lines(name) for run in (baseline, other))
        gate = None
        if name in self.margins:
            failed = {"A": int(baseline.failed.sum()), letter: int(other.failed.sum())}
            excess = describe_failures(failed, before.size, self.thresholds.max_failed)
            share = unscored / max(baseline.scorable_lines(name), 1)
            gate = (
                GateVerdict(self.margins[name], INCONCLUSIVE, excess)
                if excess
                else self._gate(result, metric, self.margins[name], share)
            )
        slices = [
            SliceComparison(
                part.by, part.value, self._result(before[part.lines], after[part.lines], metric)
            )
            for part in self.slices
        ]
        return MetricComparison(letter, name, result, unscored, gate, slices)

    def _result(self, before: Array, after: Array, metric: Metric) -> PairedResult:
        """Compare the lines that have a score in both runs."""
        scored = ~(np.isnan(before) | np.isnan(after))
        before, after = before[scored], after[scored]
        difference = after - before
        low, high = bootstrap_interval(
            difference, resamples=self.settings.resamples, seed=self.settings.seed
        )
        return PairedResult(
            n=int(difference.size),
            baseline_mean=_number(sample_mean(before).mean),
            mean=_number(sample_mean(after).mean),
            difference=_number(sample_mean(difference).mean),
            low=_number(low),
            high=_number(high),
            outcomes=_outcomes(difference, metric),
        )

    def _gate(
        self, result: PairedResult, metric: Metric, margin: float, unscored: float
    ) -> GateVerdict:
        low, high = result.low, result.high
        if low is not None and high is not None and not metric.higher_is_better:
            low, high = -high, -low
        gate = decide_gate(
            (low, high), margin, unscored=unscored, max_unscored=self.thresholds.max_unparsed
        )
        if _all_worst(result, metric):
            note = f"; every line of both runs has the worst score, {metric.worst:g}"
            gate = replace(gate, reason=gate.reason + note)
        return gate


def _all_worst(result: PairedResult, metric: Metric) -> bool:
    """Return whether all compared lines of both runs have the worst score."""
    if metric.worst is None or result.mean is None or result.baseline_mean is None:
        return False
    means = (result.mean, result.baseline_mean)
    return all(abs(mean - metric.worst) <= TIE for mean in means)


def _outcomes(difference: Array, metric: Metric) -> Outcomes | None:
    if metric.higher_is_better is None:
        return None
    wins, losses, ties = count_outcomes(difference if metric.higher_is_better else -difference)
    return Outcomes(wins, losses, ties, sign_test(wins, losses))


def _run_summaries(line_scores: Sequence[LineScores]) -> list[RunSummary]:
    """Return the summary of each run. A run that is given twice gets a note."""
    letters: dict[str, str] = {}  # source -> letter of the first run with it
    summaries = []
    for letter, scores in zip(RUN_LETTERS, line_scores):
        same = letters.setdefault(scores.run.source or letter, letter)
        note = "" if same == letter else f"the same run as {same}, so that they cannot differ"
        summaries.append(_run_summary(letter, scores, note))
    return summaries


def _run_summary(letter: str, line_scores: LineScores, note: str) -> RunSummary:
    run = line_scores.run
    means = {}
    for name, values in line_scores.scores.items():
        mean = sample_mean(values[~np.isnan(values)])
        unscored = line_scores.unscored_lines(name)
        means[name] = ScoreMean(mean.n, _number(mean.mean), _number(mean.stderr), unscored)
    return RunSummary(
        letter=letter,
        name=run.name,
        note="; ".join(filter(None, (run.note, note))),
        answered=int((~line_scores.failed).sum()),
        failed=int(line_scores.failed.sum()),
        scores=means,
        facts=dict(run.facts),
        logged={name: _number(value) for name, value in run.scored.metrics.items()},
    )


def _differing_facts(runs: Sequence[ScoredRun]) -> list[FactDifference]:
    names = dict.fromkeys(name for run in runs for name in run.facts)
    facts = [FactDifference(name, [run.facts.get(name) for run in runs]) for name in names]
    return [fact for fact in facts if len(set(fact.values)) > 1]
