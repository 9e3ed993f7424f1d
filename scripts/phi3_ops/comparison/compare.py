"""Runs compared line by line: the first is the baseline, every further one is set against it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import OpsError
from ..files import read_jsonl
from ..hashing import file_sha256
from ..runs import ScoredRun
from .paired_stats import (
    CONFIDENCE,
    RESAMPLES,
    TIE,
    Array,
    bootstrap_interval,
    count_outcomes,
    sample_mean,
    sign_test,
)
from .thresholds import Metric, Thresholds

SCHEMA = 1
SLICES = ("kind", "tags")  # columns that are taken for slices where the data has them
MOST_SLICES = 50
RUN_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

PASS, REGRESSION, INCONCLUSIVE = "pass", "regression", "inconclusive"
EXIT_CODES = {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 2}
WORST_FIRST = (REGRESSION, INCONCLUSIVE, PASS)
ALL_METRICS = "all"


@dataclass(frozen=True)
class ComparisonSettings:
    """What to compare, and how.

    Attributes:
        metrics: names of scores; all that the runs have in common when empty.
        by: columns of the data whose values (or tags, in a list) make the slices; None takes `SLICES`.
        gates: score -> margin; None takes the margin of the thresholds. `all` stands for every score that
            has one there.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """

    metrics: Sequence[str] = ()
    by: Sequence[str] | None = None
    gates: Mapping[str, float | None] = field(default_factory=dict)
    seed: int = 1
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Attributes:
        summary: what is written as JSON; docs/evaluation.md describes it.
        data: rows of the data file.
        runs: the baseline first.
        scores: for each run, score -> values, shape (lines,): NaN where there is none. A failed line has
            what the thresholds say.
        failed: for each run, which lines failed, shape (lines,).
    """

    summary: dict[str, Any]
    data: list[dict[str, Any]]
    runs: Sequence[ScoredRun]
    scores: Sequence[Mapping[str, Array]]
    failed: Sequence[np.ndarray]

    @property
    def exit_code(self) -> int:
        """0 pass or no gate, 1 regression, 2 inconclusive."""
        gate = self.summary["gate"]
        return EXIT_CODES[gate["verdict"]] if gate else 0


def compare_runs(
    found: Sequence[ScoredRun],
    limits: Thresholds = Thresholds(),
    settings: ComparisonSettings = ComparisonSettings(),
) -> Comparison:
    """Compare runs over the same data.

    Args:
        found: two or more; the first is the baseline.
        limits: what is known of the scores.
        settings: what to compare, and how.

    Raises:
        OpsError: the runs ran over different data or have no score in common, or something named in
            the settings is not there.
    """
    digest = _same_data(found)
    data = read_jsonl(found[0].data)
    if not data:
        raise OpsError(f"{found[0].data} has no lines", "There is nothing to compare.")
    names = _metrics(found, limits, settings)
    gates = _gates(names, limits, settings)
    failed = [_failed(run, len(data)) for run in found]
    scores = [
        {name: _values(run, name, lost, limits.metric(name)) for name in names}
        for run, lost in zip(found, failed)
    ]
    slices = _slices(data, settings.by)
    compared = []
    for number in range(1, len(found)):
        for name in names:
            pair = _Pair(scores[0][name], scores[number][name], limits.metric(name), settings)
            entry = {"run": RUN_LETTERS[number], "metric": name, **pair.result(slice(None))}
            entry["unscored"] = pair.unscored(failed[0], failed[number])
            if name in gates:
                entry["gate"] = _gate(entry, gates[name], limits, len(data))
            entry["slices"] = [
                {"by": by, "value": value, **pair.result(where)} for by, value, where in slices
            ]
            compared.append(entry)
    summary = {
        "schema": SCHEMA,
        "data": {"path": str(found[0].data), "sha256": digest, "lines": len(data)},
        "settings": {
            "confidence": CONFIDENCE,
            "resamples": settings.resamples,
            "seed": settings.seed,
            "max_unparsed": limits.max_unparsed,
        },
        "metrics": {name: limits.metric(name).model_dump() for name in names},
        "runs": [
            _run_summary(letter, run, lost, values)
            for letter, run, lost, values in zip(RUN_LETTERS, found, failed, scores)
        ],
        "differences": _differing_facts(found),
        "comparisons": compared,
        "gate": _overall(compared),
    }
    return Comparison(summary, data, found, scores, failed)


# -- what is compared ------------------------------------------------------------------------------


def _same_data(found: Sequence[ScoredRun]) -> str:
    """Hash of the data file that all runs ran over."""
    if not 2 <= len(found) <= len(RUN_LETTERS):
        raise OpsError(f"{len(found)} runs given", f"Give 2 to {len(RUN_LETTERS)}.")
    digests = [file_sha256(run.data) for run in found]
    for run, digest in zip(found, digests):
        if digest != digests[0]:
            raise OpsError(
                f"{found[0].name} ran over {found[0].data}, and {run.name} over {run.data}",
                "These files differ; only runs over the same data can be compared line by line.",
            )
    return digests[0]


def _metrics(
    found: Sequence[ScoredRun], limits: Thresholds, settings: ComparisonSettings
) -> list[str]:
    """Names of the scores to compare: those that all runs have, in the order of the thresholds."""
    names = _numeric(found)
    common = list(names)
    for run in found:
        columns = {column for row in run.scored.rows.values() for column in row}
        if run.scored.rows and columns.isdisjoint(names):
            raise OpsError(
                f"the run {run.name} has no scores",
                f"Score it first: pf run create --flow flows/eval --data {run.data} --run {run.name}"
                " --column-mapping answer='${run.outputs.answer}' ground_truth='${data.ground_truth}'",
            )
        # Where every line failed, there are no columns to look at.
        common = [name for name in common if name in columns or not run.scored.rows]
    known = list(limits.metrics)
    common.sort(key=lambda name: known.index(name) if name in known else len(known))
    for name in (*settings.metrics, *settings.gates):
        if name not in common and name != ALL_METRICS:
            has = ", ".join(common) or "none"
            raise OpsError(f"the runs have no score {name!r} in common", f"They have: {has}.")
    if not common:
        raise OpsError("the runs have no score in common", "Score both with the same flow.")
    wanted = {*settings.metrics, *settings.gates} - {ALL_METRICS}
    return [name for name in common if name in wanted] if settings.metrics else common


def _numeric(found: Sequence[ScoredRun]) -> list[str]:
    """The columns that hold a number in some line of some run."""
    names: dict[str, None] = {}
    for run in found:
        for row in run.scored.rows.values():
            names |= {name: None for name, value in row.items() if _number(value) is not None}
    return list(names)


def _number(value: object) -> float | None:
    """A finite number, or None: what JSON and a score can be."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def _failed(run: ScoredRun, lines: int) -> np.ndarray:
    """Which lines have no answer; where only scores are known, which have no scores."""
    answered = run.asked.rows if run.asked else run.scored.rows
    lost = np.ones(lines, dtype=bool)
    lost[list(answered)] = False
    return lost


def _values(run: ScoredRun, name: str, failed: np.ndarray, metric: Metric) -> Array:
    values = np.full(failed.size, np.nan)
    for line, row in run.scored.rows.items():
        value = _number(row.get(name))
        values[line] = np.nan if value is None else value
    values[failed] = np.nan if metric.worst is None else metric.worst
    return values


def _slices(
    data: Sequence[Mapping[str, Any]], by: Sequence[str] | None
) -> list[tuple[str, str, np.ndarray]]:
    """Column, value and lines of each slice; a list in the column puts a line into several."""
    found = []
    for column in SLICES if by is None else by:
        lines: dict[str, list[int]] = {}
        for line, row in enumerate(data):
            values = row.get(column)
            for value in values if isinstance(values, list) else [values]:
                if value is not None:
                    lines.setdefault(str(value), []).append(line)
        if by is not None and not lines:
            raise OpsError(f"the data has no column {column!r}", f"It has: {', '.join(data[0])}.")
        if len(lines) > MOST_SLICES:
            raise OpsError(
                f"the column {column!r} has {len(lines)} different values",
                f"A column for slices has at most {MOST_SLICES}; --by names another.",
            )
        found += [(column, value, np.array(where)) for value, where in sorted(lines.items())]
    return found


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """One score of the baseline and of another run, shape (lines,) each."""

    baseline: Array
    other: Array
    metric: Metric
    settings: ComparisonSettings

    def result(self, where: Any) -> dict[str, Any]:
        """What came of some of the lines. A line that one of both has no score of is left out."""
        before, after = self.baseline[where], self.other[where]
        both = ~(np.isnan(before) | np.isnan(after))
        before, after = before[both], after[both]
        difference = after - before
        low, high = bootstrap_interval(
            difference, resamples=self.settings.resamples, seed=self.settings.seed
        )
        found: dict[str, Any] = {
            "n": int(difference.size),
            "baseline_mean": _number(sample_mean(before).mean),
            "mean": _number(sample_mean(after).mean),
            "difference": _number(sample_mean(difference).mean),
            "low": _number(low),
            "high": _number(high),
        }
        if self.metric.higher_is_better is None:
            return found
        better = difference if self.metric.higher_is_better else -difference
        wins, losses, ties = count_outcomes(better)
        p_value = sign_test(wins, losses)
        return {**found, "wins": wins, "losses": losses, "ties": ties, "p_value": p_value}

    def unscored(self, *failed: np.ndarray) -> int:
        """Lines of the run that has more of them which were answered, but not scored."""
        return max(
            int((np.isnan(values) & ~lost).sum())
            for values, lost in zip((self.baseline, self.other), failed)
        )


def _run_summary(
    letter: str, run: ScoredRun, failed: np.ndarray, scores: Mapping[str, Array]
) -> dict[str, Any]:
    means = {}
    for name, values in scores.items():
        mean = sample_mean(values[~np.isnan(values)])
        means[name] = {
            "n": mean.n,
            "mean": _number(mean.mean),
            "stderr": _number(mean.stderr),
            "unscored": int((np.isnan(values) & ~failed).sum()),
        }
    return {
        "letter": letter,
        "name": run.name,
        "note": run.note,
        "answered": int((~failed).sum()),
        "failed": int(failed.sum()),
        "scores": means,
        "facts": run.facts,
        "logged": {name: _number(value) for name, value in run.scored.metrics.items()},
    }


def _differing_facts(found: Sequence[ScoredRun]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for run in found for name in run.facts)
    rows = [{"fact": name, "values": [run.facts.get(name) for run in found]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


# -- the gate --------------------------------------------------------------------------------------


def _gates(
    names: Sequence[str], limits: Thresholds, settings: ComparisonSettings
) -> dict[str, float]:
    """Score -> margin."""
    asked = dict(settings.gates)
    if ALL_METRICS in asked:
        del asked[ALL_METRICS]
        margins = {name: limits.metric(name).margin for name in names}
        asked = {**{name: m for name, m in margins.items() if m is not None}, **asked}
        if not asked:
            raise OpsError("no score has a margin in the thresholds", "Give --gate METRIC:MARGIN.")
    found = {}
    for name, margin in asked.items():
        metric = limits.metric(name)
        margin = metric.margin if margin is None else margin
        if metric.higher_is_better is None:
            raise OpsError(f"{name} is neither better nor worse", "Gate on another score.")
        if margin is None:
            raise OpsError(f"{name} has no margin in the thresholds", f"Give --gate {name}:MARGIN.")
        found[name] = margin
    return found


def _gate(
    entry: Mapping[str, Any], margin: float, limits: Thresholds, lines: int
) -> dict[str, Any]:
    """The verdict on one score of one run."""
    higher = limits.metric(entry["metric"]).higher_is_better
    verdict, reason = decide_gate(
        (entry["low"], entry["high"]) if higher else _turned(entry["low"], entry["high"]),
        margin,
        unscored=entry["unscored"] / lines,
        max_unscored=limits.max_unparsed,
    )
    return {"margin": margin, "verdict": verdict, "reason": reason}


def _turned(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    return (None, None) if low is None or high is None else (-high, -low)


def decide_gate(
    improvement: tuple[float | None, float | None],
    margin: float,
    *,
    unscored: float,
    max_unscored: float,
) -> tuple[str, str]:
    """Whether a run is, for certain, no worse than the baseline by more than a margin.

    Args:
        improvement: interval of how much better the run is; (None, None) where there is none.
        margin: how much worse is still accepted, 0 or more.
        unscored: share of the lines without a score.
        max_unscored: the share up to which the rest can be trusted.

    Returns:
        The verdict (`PASS`, `REGRESSION`, `INCONCLUSIVE`) and why, in words.
    """
    low, high = improvement
    if unscored > max_unscored:
        return (
            INCONCLUSIVE,
            f"{unscored:.1%} of the lines have no score; {max_unscored:.0%} is accepted",
        )
    if low is None or high is None:
        return INCONCLUSIVE, "fewer than two lines to compare"
    accepted = f"up to {margin:.4g} worse is accepted"
    if low >= -margin - TIE:
        return PASS, f"at worst {_words(low)}; {accepted}"
    if high < -margin - TIE:
        return REGRESSION, f"at best {_words(high)}; {accepted}"
    return INCONCLUSIVE, f"{_words(low)} to {_words(high)}; {accepted}"


def _words(improvement: float) -> str:
    if not improvement:
        return "as good"
    return f"{abs(improvement):.4g} {'worse' if improvement < 0 else 'better'}"


def _overall(compared: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    verdicts = {entry["gate"]["verdict"] for entry in compared if "gate" in entry}
    if not verdicts:
        return None
    verdict = next(v for v in WORST_FIRST if v in verdicts)
    return {"verdict": verdict, "exit_code": EXIT_CODES[verdict]}
