"""Holm's correction is held to statsmodels, the Pareto front to its definition."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from phi3_ops.comparison.paired_stats import RESAMPLES, count_outcomes, sign_test
from phi3_ops.sweeps.statistics import (
    MOST_RESAMPLES,
    enough_resamples,
    holm,
    pareto_front,
    percentile,
    simultaneous_confidence,
)


def test_holm_is_that_of_statsmodels():
    random.seed(2)
    values = [0.0, 1e-9, 0.01, 0.01, 0.2, 1.0]
    for length in range(1, 40):
        p_values = [random.choice([random.random(), *values]) for _ in range(length)]
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_the_example_of_holms_correction():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2]


def test_simultaneous_intervals_hold_together():
    assert simultaneous_confidence(1) == 0.95
    assert simultaneous_confidence(10) == pytest.approx(0.995)
    assert simultaneous_confidence(0) == 0.95


def test_an_interval_has_samples_beyond_its_ends():
    assert enough_resamples(0.95) == RESAMPLES
    assert enough_resamples(simultaneous_confidence(100)) * 0.0005 / 2 >= 9.9
    assert enough_resamples(simultaneous_confidence(10_000)) == MOST_RESAMPLES


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2.5), (95, 3.85), (100, 4)])
def test_a_percentile_is_interpolated(percent, value):
    assert percentile([4, 1, 3, 2], percent) == pytest.approx(value)
    assert percentile([], percent) is None


def test_the_pareto_front_is_what_nothing_dominates():
    random.seed(3)
    for _ in range(50):
        points = [(random.randint(0, 5), random.randint(0, 5)) for _ in range(8)]
        front = pareto_front(points)
        for index, (expense, quality) in enumerate(points):
            dominated = any(
                (other[0] < expense and other[1] >= quality)
                or (other[0] <= expense and other[1] > quality)
                for other in points
            )
            assert (index in front) != dominated


def test_equal_points_are_both_on_the_front():
    assert pareto_front([(1.0, 2.0), (1.0, 2.0), (2.0, 2.0)]) == [0, 1]


def test_of_equal_cells_few_sweeps_find_a_difference():
    draw = np.random.default_rng(1)
    pairs = list(itertools.combinations(range(4), 2))
    found = 0
    for _ in range(1000):
        scores = (draw.random((4, 30)) < 0.5).astype(float)
        outcomes = [count_outcomes(scores[b] - scores[a]) for a, b in pairs]
        found += min(holm([sign_test(wins, losses) for wins, losses, _ in outcomes])) < 0.05
    assert found <= 50  # 5 %; the exact test is stricter: about 2 %
