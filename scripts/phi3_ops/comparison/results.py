"""The results of a comparison, and their JSON document: compare.json, schema 1.

docs/evaluation.md describes the document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..runs import ScoredRun
from .gates import GateSummary, GateVerdict, summarise_gates
from .paired_stats import Array, BoolArray
from .thresholds import Metric

SCHEMA = 1


@dataclass(frozen=True)
class ComparedData:
    """The data file of a comparison: its path, its SHA-256 in hex, its number of lines."""

    path: str
    sha256: str
    lines: int


@dataclass(frozen=True)
class StatisticsSettings:
    """The settings with which the statistics were computed.

    Attributes:
        confidence: confidence of the intervals, between 0 and 1.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.
        max_unparsed: largest share of lines without a score at which a gate still decides.
        max_failed: largest share of failed lines of a run at which a gate still decides.
    """

    confidence: float
    resamples: int
    seed: int
    max_unparsed: float
    max_failed: float


@dataclass(frozen=True)
class ScoreMean:
    """The mean of one score of one run.

    Attributes:
        n: number of lines that have the score.
        mean: their mean; None without lines.
        stderr: its standard error; None below two lines.
        unscored: number of lines that were answered but have no score.
    """

    n: int
    mean: float | None
    stderr: float | None
    unscored: int


@dataclass(frozen=True)
class RunSummary:
    """One of the compared runs.

    Attributes:
        letter: `A` for the baseline, then `B`, `C`, …
        name: the name that the user gave.
        note: a choice that was made for the user, such as the newest of several evaluations.
        answered: number of lines with an answer.
        failed: number of lines without an answer.
        scores: score -> its mean.
        facts: recorded properties of the run.
        logged: metrics that the run itself logged.
    """

    letter: str
    name: str
    note: str
    answered: int
    failed: int
    scores: dict[str, ScoreMean]
    facts: dict[str, str]
    logged: dict[str, float | None]


@dataclass(frozen=True)
class FactDifference:
    """A recorded property that differs between the runs: one value per run, None if not recorded."""

    fact: str
    values: list[str | None]


@dataclass(frozen=True)
class Outcomes:
    """Numbers of lines in which a run is better than the baseline, worse, or equal.

    Attributes:
        p_value: p-value of the exact two-sided sign test of wins against losses.
    """

    wins: int
    losses: int
    ties: int
    p_value: float


@dataclass(frozen=True)
class PairedResult:
    """One score of a run compared with the baseline, over the lines that have the score in both.

    Attributes:
        n: number of these lines.
        baseline_mean: mean of the baseline; None without lines, like the other numbers.
        mean: mean of the run.
        difference: mean of the run minus mean of the baseline.
        low, high: ends of the interval of the difference; None for fewer than two lines.
        outcomes: None if neither direction of the score is better.
    """

    n: int
    baseline_mean: float | None
    mean: float | None
    difference: float | None
    low: float | None
    high: float | None
    outcomes: Outcomes | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with those of the outcomes beside them."""
        fields = asdict(self)
        outcomes = fields.pop("outcomes")
        return {**fields, **(outcomes or {})}


@dataclass(frozen=True)
class SliceComparison:
    """The result over the lines whose column `by` has a value."""

    by: str
    value: str
    result: PairedResult

    def to_json(self) -> dict[str, Any]:
        return {"by": self.by, "value": self.value, **self.result.to_json()}


@dataclass(frozen=True)
class MetricComparison:
    """One score of one run compared with the baseline.

    Attributes:
        run: letter of the run.
        metric: name of the score.
        result: the result over all lines.
        unscored: number of lines that were answered but have no score, in the run with more of them.
        gate: the verdict; None if the score is not gated.
        slices: the results over parts of the lines.
    """

    run: str
    metric: str
    result: PairedResult
    unscored: int
    gate: GateVerdict | None
    slices: list[SliceComparison]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "metric": self.metric,
            **self.result.to_json(),
            "unscored": self.unscored,
            **({"gate": asdict(self.gate)} if self.gate else {}),
            "slices": [part.to_json() for part in self.slices],
        }


@dataclass(frozen=True)
class LineScores:
    """The scores of one run line by line.

    Attributes:
        run: the run that they are of.
        scores: score -> values, shape (lines,); NaN for a line without a score. A failed line has the
            value that the thresholds define.
        failed: whether a line failed, shape (lines,).
        samples: score of which only a sample was scored -> whether a line is in it, shape (lines,).
    """

    run: ScoredRun
    scores: Mapping[str, Array]
    failed: BoolArray
    samples: Mapping[str, BoolArray] = field(default_factory=dict)

    def unscored_lines(self, name: str) -> int:
        """Return the number of lines that were answered, and should have a score, but have none."""
        unscored = np.isnan(self.scores[name]) & ~self.failed
        return int((unscored & self.samples.get(name, True)).sum())

    def scorable_lines(self, name: str) -> int:
        """Return the number of lines that should have a score."""
        return int(self.samples[name].sum()) if name in self.samples else self.failed.size


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs with the first of them.

    Attributes:
        data: the data file.
        settings: the settings of the statistics.
        metrics: score -> its direction, range and margin.
        runs: the compared runs; the baseline is the first.
        differences: the recorded properties that differ.
        comparisons: one entry per run and score, without the baseline.
        rows: the rows of the data file. They are not part of the JSON document.
        line_scores: for each run, its scores line by line. They are not part of the JSON document.
    """

    data: ComparedData
    settings: StatisticsSettings
    metrics: dict[str, Metric]
    runs: list[RunSummary]
    differences: list[FactDifference]
    comparisons: list[MetricComparison]
    rows: Sequence[Mapping[str, Any]]
    line_scores: Sequence[LineScores]

    @property
    def gate(self) -> GateSummary | None:
        """The verdict on all gated scores; None without a gate."""
        return summarise_gates([entry.gate for entry in self.comparisons if entry.gate])

    @property
    def exit_code(self) -> int:
        """0 for a pass or without a gate, 1 for a regression, 2 if the result is inconclusive."""
        return self.gate.exit_code if self.gate else 0

    def to_json(self) -> dict[str, Any]:
        """Return the document that compare.json contains."""
        gate = self.gate
        return {
            "schema": SCHEMA,
            "data": asdict(self.data),
            "settings": asdict(self.settings),
            "metrics": {name: metric.model_dump() for name, metric in self.metrics.items()},
            "runs": [asdict(run) for run in self.runs],
            "differences": [asdict(difference) for difference in self.differences],
            "comparisons": [entry.to_json() for entry in self.comparisons],
            "gate": {"verdict": gate.verdict, "exit_code": gate.exit_code} if gate else None,
        }
