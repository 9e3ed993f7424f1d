"""Agreement between raters: Cohen's kappa and Krippendorff's alpha, with intervals. Pure functions.

Sources: Fleiss, Cohen and Everitt, "Large sample standard errors of kappa and weighted kappa" (1969);
Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011); Barlow et al., "Statistical Inference
under Order Restrictions" (1972), for the monotone map.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 4_000


@dataclass(frozen=True)
class Agreement:
    """A coefficient of agreement: 1 is perfect agreement, 0 the agreement of chance.

    Attributes:
        n: number of judged units.
        value: the coefficient; None if it is not defined, because all ratings are the same.
        low, high: ends of its interval; None if they cannot be computed.
    """

    n: int
    value: float | None
    low: float | None = None
    high: float | None = None


def confusion_table(pairs: Sequence[tuple[int, int]], categories: int) -> list[list[int]]:
    """Return how often each pair of categories occurs: rows are the first rater's categories.

    Args:
        pairs: for each unit, the categories that the two raters gave, from 0.
        categories: number of categories.
    """
    table = [[0] * categories for _ in range(categories)]
    for first, second in pairs:
        table[first][second] += 1
    return table


def cohen_kappa(
    table: Sequence[Sequence[int]],
    *,
    quadratic: bool,
    groups: Sequence[Sequence[tuple[int, int]]] | None = None,
) -> Agreement:
    """Return Cohen's kappa of two raters, with an interval from its large-sample standard error.

    Args:
        table: how often each pair of categories occurs, shape (categories, categories).
        quadratic: whether a disagreement counts by the square of its distance. Otherwise, every
            disagreement counts the same.
        groups: the units of the table in groups that depend on each other, such as the answers to one
            question. The standard error is then that of the groups. By default, each unit is a group.
    """
    counts = np.asarray(table, dtype=float)
    n, categories = int(counts.sum()), len(counts)
    if not n:
        return Agreement(0, None)
    ranks = np.arange(categories)
    distance = (ranks[:, None] - ranks[None, :]) / (categories - 1)
    weights = 1 - distance**2 if quadratic else np.eye(categories)
    shares = counts / n
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, expected = float((weights * shares).sum()), float(rows @ weights @ columns)
    if expected >= 1 - 1e-12:
        return Agreement(n, None)
    kappa = (observed - expected) / (1 - expected)
    if observed >= 1 - 1e-12:
        return Agreement(n, 1.0, _low_end_of_perfect(len(groups or ()) or n, expected), 1.0)
    by_row, by_column = weights @ columns, rows @ weights
    mean_weights = by_row[:, None] + by_column[None, :]
    mean = kappa - expected * (1 - kappa)
    deviations = weights - mean_weights * (1 - kappa) - mean
    if groups is None:
        spread = float((counts * deviations**2).sum())
    else:
        spread = sum(float(sum(deviations[pair] for pair in group)) ** 2 for group in groups)
    variance = spread / (n * (1 - expected)) ** 2
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance)
    return Agreement(n, kappa, max(kappa - reach, -1.0), min(kappa + reach, 1.0))


def _low_end_of_perfect(n: int, expected: float) -> float:
    """Return the low end of the interval if the raters agree on all units.

    The standard error is then 0. The exact binomial limit of the observed agreement is used instead.
    """
    observed = float(((1 - CONFIDENCE) / 2) ** (1 / n))
    return max((observed - expected) / (1 - expected), -1.0)


def krippendorff_alpha(
    units: Sequence[Sequence[float]], *, groups: Sequence[Hashable] | None = None, seed: int = 1
) -> Agreement:
    """Return Krippendorff's alpha for interval data, with a bootstrap interval over groups of units.

    Args:
        units: for each unit, the scores of the raters that scored it. Units with fewer than two scores
            are left out.
        groups: the group of each unit, such as its question. By default, each unit is a group.
        seed: seed of the bootstrap.
    """
    by_group: dict[Hashable, list[tuple[float, float, float, float]]] = {}
    for group, unit in zip(range(len(units)) if groups is None else groups, units):
        if len(unit) > 1:
            by_group.setdefault(group, []).append(_unit_sums(unit))
    n = sum(len(group) for group in by_group.values())
    if not n:
        return Agreement(0, None)
    sums = np.array([np.sum(group, axis=0) for group in by_group.values()])
    value = float(_alpha(sums.sum(axis=0)[None, :])[0])
    if not math.isfinite(value):
        return Agreement(n, None)
    size = len(sums)
    draws = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    resampled = _alpha(draws @ sums)
    resampled = resampled[np.isfinite(resampled)]
    # Without a disagreement, the bootstrap has no spread, which would look like certainty.
    if size < 2 or not resampled.size or value >= 1 - 1e-12:
        return Agreement(n, value)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(n, value, float(low), float(high))


def _unit_sums(scores: Sequence[float]) -> tuple[float, float, float, float]:
    """Return number, sum and sum of squares of a unit's scores, and its observed disagreement."""
    values = np.asarray(scores, dtype=float)
    count, total, squares = values.size, float(values.sum()), float((values**2).sum())
    # The sum of the squared differences of all ordered pairs, by the number of the other raters.
    disagreement = 2 * (count * squares - total**2) / (count - 1)
    return float(count), total, squares, disagreement


def _alpha(sums: Array) -> Array:
    """Return alpha for each row of sums over units, see `_unit_sums`; shape (n, 4) -> (n,).

    It is not finite where all scores are the same.
    """
    count, total, squares, disagreement = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = disagreement / count
        expected = 2 * (count * squares - total**2) / (count * (count - 1))
        return np.where(expected > 1e-12, 1 - observed / expected, np.nan)


def monotone_means(scores: Sequence[float], ratings: Sequence[float]) -> list[tuple[float, float]]:
    """Return the non-decreasing map from scores to ratings with the smallest squared error.

    Neighbouring scores whose mean ratings are in the wrong order are merged (pool adjacent violators).

    Args:
        scores: the scores of a judge, in any order.
        ratings: the rating of each.

    Returns:
        Each different score with its value, in the order of the scores.
    """
    levels = sorted(set(scores))
    blocks: list[tuple[float, int, int]] = []  # sum of ratings, number of ratings, number of levels
    for level in levels:
        own = [rating for score, rating in zip(scores, ratings) if score == level]
        blocks.append((math.fsum(own), len(own), 1))
        while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
            last = blocks.pop()
            before = blocks.pop()
            blocks.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    values = [_mean(block) for block in blocks for _ in range(block[2])]
    return list(zip(levels, values))


def _mean(block: tuple[float, int, int]) -> float:
    return block[0] / block[1]
