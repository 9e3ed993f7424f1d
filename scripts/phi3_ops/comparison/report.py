"""Render a comparison as one HTML file without scripts and external content; model output stays text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .page import render_page
from .paired_stats import TIE, Array
from .results import Comparison, LineScores, MetricComparison, RunSummary

MAX_LINES = 500
BINS = 21
SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the intervals, as shares of a score's range
WIN, LOSS, TIED = "win", "loss", "tie"  # CSS classes, too
FAILED = "f"  # CSS class of a line that failed in a run


@dataclass(frozen=True)
class IntervalBar:
    """Positions of an interval on a scale from 0 to 200; 100 is no difference, 200 is better."""

    low: float
    high: float
    difference: float
    margin: float | None  # position of the gate's margin, if it is on the scale


@dataclass(frozen=True)
class HistogramBar:
    """One bar of a histogram, in pixels, with the number of lines that it stands for."""

    x: int
    height: float
    count: int
    outcome: str


@dataclass(frozen=True)
class Histogram:
    """How often each difference occurs, from the largest loss to the largest win."""

    largest: float
    bars: list[HistogramBar]


@dataclass(frozen=True)
class Figure:
    """The figures of one comparison; each is None if there is nothing to draw."""

    bar: IntervalBar | None
    histogram: Histogram | None


class CellScore(NamedTuple):
    """A score of one line: its name, its value and its outcome against the baseline."""

    name: str
    value: float | None
    outcome: str | None


@dataclass(frozen=True)
class Cell:
    """What the page shows of one run in one line."""

    letter: str
    failed: bool
    error: str
    texts: list[tuple[str, Any]]
    scores: list[CellScore]


@dataclass(frozen=True)
class Line:
    """What the page shows of one line of the data, and the CSS classes that the filters use."""

    number: int
    data: list[tuple[str, Any]]
    classes: list[str]
    cells: list[Cell]


@dataclass(frozen=True)
class FilterChoice:
    """One choice of a filter.

    Attributes:
        name: CSS class of its lines.
        shown: number of its lines on the page.
        total: number of its lines in the data.
    """

    name: str
    shown: int
    total: int


@dataclass(frozen=True)
class Filter:
    """The filters of one comparison, by their outcome."""

    run: str
    metric: str
    choices: dict[str, FilterChoice]


def render_report(comparison: Comparison, *, rows: int = MAX_LINES) -> str:
    """Return the report as HTML.

    Args:
        comparison: the comparison to report.
        rows: maximum number of lines to show: lost lines first, then won lines, the largest difference
            first.
    """
    improvements = [_improvement(comparison, entry) for entry in comparison.comparisons]
    order = _order(comparison.comparisons, improvements)[:rows].tolist()
    runs = [_PageRun(*pair) for pair in zip(comparison.runs, comparison.line_scores)]
    lines = [_line(comparison, runs, improvements, number) for number in order]
    reach = _reach(comparison)
    return render_page(
        "compare.html",
        css=_filters_css(len(comparison.comparisons)),
        comparison=comparison,
        figures=[
            Figure(_interval_bar(comparison, entry, reach), _histogram(improvement))
            for entry, improvement in zip(comparison.comparisons, improvements)
        ],
        reach=reach,
        lines=lines,
        filters=_filters(comparison.comparisons, lines),
        failed=_failed_choice(comparison, lines),
        total=comparison.data.lines,
    )


# -- lines -----------------------------------------------------------------------------------------


def _run_index(comparison: Comparison, entry: MetricComparison) -> int:
    return [run.letter for run in comparison.runs].index(entry.run)


def _improvement(comparison: Comparison, entry: MetricComparison) -> Array:
    """Return how much better the run is in each line, shape (lines,); NaN without both scores."""
    baseline = comparison.line_scores[0].scores[entry.metric]
    other = comparison.line_scores[_run_index(comparison, entry)].scores[entry.metric]
    lower_is_better = comparison.metrics[entry.metric].higher_is_better is False
    return baseline - other if lower_is_better else other - baseline


def _order(entries: Sequence[MetricComparison], improvements: Sequence[Array]) -> NDArray[np.int64]:
    """Return the lines in the order of the page: lost, won, then the rest of the first comparison.

    Lines with the largest difference come first.
    """
    directed = [values for entry, values in zip(entries, improvements) if entry.result.outcomes]
    if not directed:
        return np.arange(improvements[0].size)
    improvement = np.nan_to_num(directed[0])
    groups = np.select([improvement < 0, improvement > 0], [0, 1], 2)
    return np.lexsort((-np.abs(improvement), groups))


class _PageRun:
    """A run with its answers and errors by line, which the run computes again at each access."""

    def __init__(self, summary: RunSummary, line_scores: LineScores) -> None:
        self.letter = summary.letter
        self.line_scores = line_scores
        self.run = line_scores.run
        self.answers = self.run.answers
        self.errors = self.run.errors

    def cell(self, number: int, row: Mapping[str, Any], outcomes: Mapping[str, str | None]) -> Cell:
        """Return the cell of a line.

        Args:
            number: number of the line, from 0.
            row: row of the data.
            outcomes: score -> outcome of the line against the baseline.
        """
        scores = []
        for name, values in self.line_scores.scores.items():
            value = None if np.isnan(values[number]) else float(values[number])
            scores.append(CellScore(name, value, outcomes.get(name)))
        return Cell(
            letter=self.letter,
            failed=bool(self.line_scores.failed[number]),
            error=self.errors.get(number, ""),
            texts=list(self._texts(number, row)),
            scores=scores,
        )

    def _texts(self, number: int, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the outputs of a line, without numbers and without copies of the data."""
        outputs = dict(self.answers.get(number, {}))
        if self.run.asked:
            scored = self.run.scored.rows.get(number, {})
            outputs |= {f"scored by: {name}": value for name, value in scored.items()}
        for name, value in outputs.items():
            is_copy = name in row and row[name] == value
            if not is_copy and value is not None and not isinstance(value, (int, float)):
                yield name, value


def _line(
    comparison: Comparison, runs: Sequence[_PageRun], improvements: Sequence[Array], number: int
) -> Line:
    outcomes = _outcomes(comparison.comparisons, improvements, number)
    row = comparison.rows[number]
    cells = []
    for run in runs:
        by_metric = {
            entry.metric: outcomes.get(index)
            for index, entry in enumerate(comparison.comparisons)
            if entry.run == run.letter
        }
        cells.append(run.cell(number, row, by_metric))
    classes = [f"{outcome}{index}" for index, outcome in outcomes.items()]
    if any(cell.failed for cell in cells):
        classes.append(FAILED)
    return Line(number, list(row.items()), classes, cells)


def _outcomes(
    entries: Sequence[MetricComparison], improvements: Sequence[Array], number: int
) -> dict[int, str]:
    """Return the outcome of a line in each comparison that has outcomes, by the comparison's index."""
    outcomes = {}
    for index, entry in enumerate(entries):
        value = improvements[index][number]
        if entry.result.outcomes and not np.isnan(value):
            outcomes[index] = TIED if abs(value) <= TIE else WIN if value > 0 else LOSS
    return outcomes


# -- filters ---------------------------------------------------------------------------------------


def _filters(entries: Sequence[MetricComparison], lines: Sequence[Line]) -> list[Filter]:
    filters = []
    for index, entry in enumerate(entries):
        if outcomes := entry.result.outcomes:
            totals = {LOSS: outcomes.losses, WIN: outcomes.wins, TIED: outcomes.ties}
            choices = {
                outcome: _choice(f"{outcome}{index}", lines, total)
                for outcome, total in totals.items()
            }
            filters.append(Filter(entry.run, entry.metric, choices))
    return filters


def _failed_choice(comparison: Comparison, lines: Sequence[Line]) -> FilterChoice:
    failed = np.any([scores.failed for scores in comparison.line_scores], axis=0)
    return _choice(FAILED, lines, int(failed.sum()))


def _choice(name: str, lines: Sequence[Line], total: int) -> FilterChoice:
    return FilterChoice(name, sum(name in line.classes for line in lines), total)


def _filters_css(comparisons: int) -> str:
    names = [FAILED, *(f"{o}{index}" for index in range(comparisons) for o in (WIN, LOSS, TIED))]
    return "".join(
        f".lines:has(#pick-{name}:checked) .listing tbody tr:not(.{name}){{display:none}}\n"
        for name in names
    )


# -- figures ---------------------------------------------------------------------------------------


def _reach(comparison: Comparison) -> float:
    """Return the share of a score's range that the scale of the intervals shows on each side."""
    ends = [
        abs(end) / width
        for entry in comparison.comparisons
        if (width := _width(comparison, entry.metric))
        for end in (entry.result.low, entry.result.high)
        if end is not None
    ]
    return next((scale for scale in SCALES if max(ends, default=0) <= scale), 1.0)


def _width(comparison: Comparison, metric: str) -> float | None:
    limits = comparison.metrics[metric].range
    return limits[1] - limits[0] if limits else None


def _interval_bar(
    comparison: Comparison, entry: MetricComparison, reach: float
) -> IntervalBar | None:
    width = _width(comparison, entry.metric)
    low, high, difference = entry.result.low, entry.result.high, entry.result.difference
    if not width or low is None or high is None or difference is None:
        return None
    lower_is_better = comparison.metrics[entry.metric].higher_is_better is False
    scale = (-100 if lower_is_better else 100) / width / reach
    margin = 100 - entry.gate.margin * abs(scale) if entry.gate else -1
    return IntervalBar(
        low=round(100 + low * scale, 2),
        high=round(100 + high * scale, 2),
        difference=round(100 + difference * scale, 2),
        margin=round(margin, 2) if margin >= 0 else None,
    )


def _histogram(improvement: Array) -> Histogram | None:
    """Return how often each difference occurs; the middle bin contains the ties."""
    improvement = improvement[~np.isnan(improvement)]
    largest = float(np.abs(improvement).max(initial=0))
    if not largest:
        return None
    edge = largest * BINS / (BINS - 1)
    counts, _ = np.histogram(improvement, bins=BINS, range=(-edge, edge))
    heights = counts / counts.max() * 60
    middle = BINS // 2
    bars = [
        HistogramBar(
            x=index * 10,
            height=round(float(height), 2),
            count=int(count),
            outcome=LOSS if index < middle else WIN if index > middle else TIED,
        )
        for index, (height, count) in enumerate(zip(heights, counts))
    ]
    return Histogram(largest, bars)
