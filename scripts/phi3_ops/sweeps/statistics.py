"""Statistics over many cells: Holm's correction, simultaneous intervals, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..comparison import CONFIDENCE, RESAMPLES

BEYOND = 10  # bootstrap samples beyond each end of an interval, at least
MOST_RESAMPLES = 200_000


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for their number.

    If every corrected value below 0.05 is called a difference, the probability of one or more false ones
    is at most 5 %, also if the comparisons depend on each other: Holm, "A Simple Sequentially Rejective
    Multiple Test Procedure" (1979).

    Args:
        p_values: one p-value per comparison, between 0 and 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def simultaneous_confidence(comparisons: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of each of several intervals that hold together: Bonferroni's correction.

    Args:
        comparisons: number of intervals.
        confidence: how often all of them contain their true values, at least.
    """
    return 1 - (1 - confidence) / max(comparisons, 1)


def enough_resamples(confidence: float) -> int:
    """Return the number of bootstrap samples for an interval: some must be beyond each of its ends."""
    return min(max(RESAMPLES, math.ceil(2 * BEYOND / (1 - confidence))), MOST_RESAMPLES)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile with linear interpolation; None without values.

    Args:
        values: the values, in any order.
        percent: between 0 and 100.
    """
    return float(np.percentile(values, percent)) if values else None


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indexes of the points that no other point dominates.

    A point dominates another one if it is not worse in both coordinates, and better in one.

    Args:
        points: pairs of an expense, of which less is better, and a quality, of which more is better.
    """
    return [
        index
        for index, (expense, quality) in enumerate(points)
        if not any(
            other[0] <= expense and other[1] >= quality and other != (expense, quality)
            for other in points
        )
    ]
