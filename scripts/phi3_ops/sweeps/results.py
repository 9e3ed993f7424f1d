"""The results of a sweep, their JSON document (sweep.json, schema 1) and their table (sweep.csv).

docs/sweeps.md describes both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .config import Value, cell_label

SCHEMA = 1
BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"


@dataclass(frozen=True)
class CellScore:
    """The mean of one score of one cell.

    Attributes:
        n: number of lines that have the score.
        mean: their mean; None without lines.
        low, high: ends of its interval; None for fewer than two lines.
        unscored: number of lines that were answered but have no score.
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None
    unscored: int


@dataclass(frozen=True)
class CellResult:
    """A cell and what was measured. Unknown numbers are None.

    Attributes:
        letter: `A` for the baseline, then `B`, `C`, …
        prompt: name of the prompt.
        connection: name of the connection, or None for the flow's own.
        parameters: name -> value.
        run: name of the run of its answers.
        evaluations: names of the runs that scored them.
        answered: number of lines with an answer.
        failed: number of lines without an answer.
        scores: score -> its mean.
        latency_p50: median of the seconds that an answered line took.
        latency_p95: likewise the 95th percentile.
        prompt_tokens: number of tokens of the prompts.
        completion_tokens: number of tokens of the answers.
        cost: cost of the answers, in the currency of the sweep.
    """

    letter: str
    prompt: str
    connection: str | None
    parameters: Mapping[str, Value]
    run: str
    evaluations: Sequence[str]
    answered: int
    failed: int
    scores: Mapping[str, CellScore]
    latency_p50: float | None
    latency_p95: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None

    @property
    def label(self) -> str:
        """The cell in words."""
        return cell_label(self.prompt, self.connection, self.parameters)

    @property
    def tokens(self) -> int | None:
        """The number of all tokens."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class CellDifference:
    """One score of a cell compared with the baseline, over the lines that have the score in both.

    Attributes:
        cell: letter of the cell.
        metric: name of the score.
        n: number of these lines.
        difference: mean of the cell minus mean of the baseline; None without lines.
        low, high: ends of its interval; None for fewer than two lines.
        corrected_low, corrected_high: ends of the interval that is corrected for all comparisons.
        wins, losses, ties: numbers of lines in which the cell is better, worse or equal.
        p_value: p-value of the sign test.
        corrected_p_value: the p-value after Holm's correction.
        verdict: `BETTER` or `WORSE` if both the corrected interval and the corrected p-value say so, else
            `UNCLEAR`.
    """

    cell: str
    metric: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    corrected_low: float | None
    corrected_high: float | None
    wins: int
    losses: int
    ties: int
    p_value: float
    corrected_p_value: float
    verdict: str


@dataclass(frozen=True)
class Decision:
    """Which cell is the winner.

    Attributes:
        winner: letter of the cell that is better than every other one, or None.
        best: letter of the cell with the best mean, or None if no cell has a mean.
        comparisons: number of pairs of cells, for which the intervals are corrected.
        reason: the decision in one sentence.
    """

    winner: str | None
    best: str | None
    comparisons: int
    reason: str


@dataclass(frozen=True)
class SweepResult:
    """A sweep with its results.

    Attributes:
        name: name of the sweep.
        data: path of the data file.
        data_sha256: hash of the data file.
        lines: number of lines in the data.
        metrics: score -> whether a higher one is better; the first score decides.
        confidence: confidence of the intervals, between 0 and 1.
        in_flight: maximum number of lines that ran at once, which influences the latencies.
        currency: currency of the costs.
        cells: the cells, the baseline first.
        differences: one entry for each score of each cell but the baseline.
        decision: the winner.
        pareto: `cost` and `latency` -> letters of the cells that no other cell dominates; without `cost`
            if no cell has a cost.
    """

    name: str
    data: str
    data_sha256: str
    lines: int
    metrics: Mapping[str, bool]
    confidence: float
    in_flight: int
    currency: str
    cells: Sequence[CellResult]
    differences: Sequence[CellDifference]
    decision: Decision
    pareto: Mapping[str, Sequence[str]]

    @property
    def metric(self) -> str:
        """The score that decides."""
        return next(iter(self.metrics))

    @property
    def failed(self) -> int:
        """The number of failed lines of all cells."""
        return sum(cell.failed for cell in self.cells)

    def difference(self, letter: str, metric: str) -> CellDifference | None:
        """Return the comparison of a cell with the baseline; None for the baseline itself."""
        matches = (
            each for each in self.differences if (each.cell, each.metric) == (letter, metric)
        )
        return next(matches, None)

    def to_json(self) -> dict[str, Any]:
        """Return the content of sweep.json."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_csv(self) -> str:
        """Return the content of sweep.csv: one row per cell."""
        rows = [self._csv_row(cell) for cell in self.cells]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _csv_row(self, cell: CellResult) -> dict[str, Any]:
        row: dict[str, Any] = {
            "cell": cell.letter,
            "prompt": cell.prompt,
            "connection": cell.connection,
            **{f"parameter {name}": value for name, value in cell.parameters.items()},
            "answered": cell.answered,
            "failed": cell.failed,
        }
        for name, score in cell.scores.items():
            difference = self.difference(cell.letter, name)
            row |= {name: score.mean, f"{name} low": score.low, f"{name} high": score.high}
            row[f"{name} difference"] = difference.difference if difference else None
            row[f"{name} corrected p"] = difference.corrected_p_value if difference else None
        names = ("latency_p50", "latency_p95", "prompt_tokens", "completion_tokens", "cost", "run")
        return row | {name: getattr(cell, name) for name in names}
