"""The coordinates of a plot of quality against an expense, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .results import CellResult, SweepResult

WIDTH, HEIGHT = 560, 320  # pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 48  # margins in pixels
TICKS = 5  # at most, on an axis
MARGIN = 0.06  # free share of an axis beyond the outermost point


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its position in pixels and its label."""

    position: float
    label: str


@dataclass(frozen=True)
class Point:
    """A cell in the plot; positions are in pixels.

    Attributes:
        cell: the cell.
        x: position of its expense.
        y: position of its mean.
        low, high: positions of the ends of its interval.
        is_on_front: whether no other cell dominates it.
    """

    cell: CellResult
    x: float
    y: float
    low: float
    high: float
    is_on_front: bool


@dataclass(frozen=True)
class Plot:
    """A plot of the deciding score against an expense.

    Attributes:
        title: the title.
        x_title: title of the horizontal axis.
        y_title: title of the vertical axis.
        x_ticks, y_ticks: the marks of the axes.
        points: the cells.
        front: the points of the front as SVG's `points`, from left to right.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    points: list[Point]
    front: str


@dataclass(frozen=True)
class _Scale:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def position(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        """Return marks at round values."""
        step = _round_step((self.high - self.low) / TICKS)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [number * step for number in range(first, last + 1)]
        return [Tick(self.position(value), f"{value:.6g}") for value in values]


def make_plots(result: SweepResult) -> list[Plot]:
    """Return a plot for each expense that is known, the cost first."""
    axes = {
        "cost": ("cost", f"cost of the answers in {result.currency}"),
        "latency": ("latency_p50", "median latency of a line in seconds"),
    }
    return [
        _plot(result, field, title, letters)
        for axis, letters in result.pareto.items()
        for field, title in [axes[axis]]
    ]


def _plot(result: SweepResult, field: str, x_title: str, front: Sequence[str]) -> Plot:
    metric = result.metric
    known = [
        (cell, float(expense), score.mean, score)
        for cell in result.cells
        if (expense := getattr(cell, field)) is not None
        and (score := cell.scores[metric]).mean is not None
    ]
    ends = [
        end
        for _, _, mean, score in known
        for end in (mean, score.low, score.high)
        if end is not None
    ]
    x_scale = _Scale(0.0, _beyond(max(x for _, x, _, _ in known)), LEFT, WIDTH - RIGHT)
    margin = (max(ends) - min(ends) or 1.0) * MARGIN
    y_scale = _Scale(min(ends) - margin, max(ends) + margin, HEIGHT - BOTTOM, TOP)
    points = [
        Point(
            cell,
            x_scale.position(expense),
            y_scale.position(mean),
            y_scale.position(mean if score.low is None else score.low),
            y_scale.position(mean if score.high is None else score.high),
            cell.letter in front,
        )
        for cell, expense, mean, score in known
        if mean is not None
    ]
    line = sorted((point.x, point.y) for point in points if point.is_on_front)
    return Plot(
        title=f"{metric} against {field.split('_')[0]}",
        x_title=x_title,
        y_title=metric,
        x_ticks=x_scale.ticks(),
        y_ticks=y_scale.ticks(),
        points=points,
        front=" ".join(f"{x},{y}" for x, y in line),
    )


def _beyond(largest: float) -> float:
    """Return the end of an axis that starts at 0."""
    return largest * (1 + MARGIN) or 1.0


def _round_step(step: float) -> float:
    """Return the least of 1, 2, 5, 10, … times a power of ten that is not below a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
