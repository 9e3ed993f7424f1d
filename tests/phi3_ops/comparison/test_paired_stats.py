"""Intervals contain the true value as often as stated, and the sign test is exact."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from phi3_ops.comparison.paired_stats import (
    bootstrap_interval,
    count_outcomes,
    sample_mean,
    sign_test,
    t_quantile,
)

SIMULATIONS = 400


def exact_matches(rng, n):
    """Two runs that are right or wrong, mostly in the same lines; they differ by 12 points."""
    base = rng.random(n) < 0.5
    other = np.where(rng.random(n) < 0.4, rng.random(n) < 0.8, base)
    return other.astype(float) - base, 0.12


def skewed(rng, n):
    return rng.exponential(1.0, n), 1.0


def judged(rng, n):
    """Verdicts from 1 to 5; about half of them agree."""
    drift = rng.choice([-2, -1, 0, 1, 2], n, p=[0.05, 0.15, 0.4, 0.3, 0.1])
    return drift.astype(float), 0.25


@pytest.mark.parametrize("draw", [exact_matches, skewed, judged])
@pytest.mark.parametrize("n", [50, 200])
def test_intervals_contain_the_true_value_as_often_as_stated(draw, n):
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(SIMULATIONS):
        differences, truth = draw(rng, n)
        low, high = bootstrap_interval(differences, resamples=1000, seed=seed)
        covered += low <= truth <= high
    # Three standard errors of a share of 400, and 2 points for skewed scores of few lines.
    slack = 3 * math.sqrt(0.95 * 0.05 / SIMULATIONS) + (0.02 if n < 100 else 0)
    assert abs(covered / SIMULATIONS - 0.95) <= slack


def test_another_confidence_holds_too():
    rng = np.random.default_rng(8)
    covered = 0
    for seed in range(SIMULATIONS):
        differences, truth = exact_matches(rng, 200)
        low, high = bootstrap_interval(differences, resamples=1000, seed=seed, confidence=0.8)
        covered += low <= truth <= high
    assert abs(covered / SIMULATIONS - 0.8) <= 3 * math.sqrt(0.8 * 0.2 / SIMULATIONS)


def test_intervals_of_few_lines_are_wide_enough():
    """Plain percentiles of 10 lines would contain the true value in about 90 % of all cases."""
    rng = np.random.default_rng(9)
    covered = 0
    for seed in range(SIMULATIONS):
        low, high = bootstrap_interval(rng.normal(0.3, 1, 10), resamples=1000, seed=seed)
        covered += low <= 0.3 <= high
    assert covered / SIMULATIONS >= 0.925


def test_the_interval_of_many_normal_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(2, 3, 5000)
    low, high = bootstrap_interval(values)
    mean = sample_mean(values)
    assert low == pytest.approx(mean.mean - 1.96 * mean.stderr, abs=0.1 * mean.stderr)
    assert high == pytest.approx(mean.mean + 1.96 * mean.stderr, abs=0.1 * mean.stderr)


def test_few_different_values_are_drawn_like_many():
    """Scores with few different values are drawn in a faster way, with the same result."""
    rng = np.random.default_rng(2)
    values = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.6, 0.3])
    apart = values + np.arange(400) * 1e-12  # all different, so drawn line by line
    assert np.unique(apart).size > 390
    assert bootstrap_interval(values) == pytest.approx(bootstrap_interval(apart), abs=0.006)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(3).normal(size=40)
    assert (
        bootstrap_interval(values, seed=5)
        == bootstrap_interval(values, seed=5)
        != bootstrap_interval(values, seed=6)
    )


def test_a_hundred_thousand_lines_are_drawn_in_pieces():
    values = np.random.default_rng(4).normal(1, 2, 100_000)
    low, high = bootstrap_interval(values, resamples=100)
    assert low < 1 < high and high - low < 0.05


@pytest.mark.parametrize("values", [[], [0.5]])
def test_no_interval_of_fewer_than_two(values):
    assert all(map(math.isnan, bootstrap_interval(np.array(values))))


def test_where_nothing_differs_the_interval_has_no_width():
    assert bootstrap_interval(np.zeros(20)) == (0, 0)
    assert bootstrap_interval(np.full(20, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (10**6, 1.960)],
)
def test_t_quantile(freedom, quantile):
    """Compared with printed tables; below 4 degrees of freedom the series is less exact."""
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=2e-4 if freedom > 3 else 0.12)


def exact_p(wins, losses):
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**n))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 12, 60, 1100])
def test_sign_test_is_exact(n):
    for wins in range(0, n + 1, max(1, n // 12)):
        assert sign_test(wins, n - wins) == pytest.approx(float(exact_p(wins, n - wins)), rel=1e-9)


def test_sign_test_of_many_lines():
    assert sign_test(50_000, 50_000) == 1
    # The normal approximation with continuity correction, good to four digits here.
    z = (50_500 - 50_000 - 0.5) / math.sqrt(100_000 / 4)
    assert sign_test(50_500, 49_500) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_outcomes():
    assert count_outcomes(np.array([1, 0.5, 0, 1e-12, -1e-12, -0.2])) == (2, 1, 3)
    assert count_outcomes(np.array([])) == (0, 0, 0)


def test_mean():
    mean = sample_mean(np.array([0.0, 1.0, 1.0, 0.0]))
    assert (mean.n, mean.mean) == (4, 0.5)
    assert mean.stderr == pytest.approx(math.sqrt(1 / 3 / 4))
    assert math.isnan(sample_mean(np.array([])).mean) and math.isnan(
        sample_mean(np.array([1.0])).stderr
    )
