"""Cohen's kappa and Krippendorff's alpha, held to statsmodels and to published examples."""

from __future__ import annotations

import random
from dataclasses import astuple

import pytest

from phi3_ops.review.agreement import (
    cohen_kappa,
    confusion_table,
    krippendorff_alpha,
    monotone_means,
)

MISSING = None
# "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS)]


def test_a_table_has_the_first_rater_in_its_rows():
    assert confusion_table([(0, 1), (0, 1), (2, 2)], 3) == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


TABLE = [[10, 3, 1, 0, 0], [2, 8, 4, 1, 0], [0, 3, 12, 5, 1], [0, 1, 4, 15, 6], [0, 0, 2, 5, 17]]


@pytest.mark.parametrize("quadratic", [False, True], ids=["no-weights", "quadratic"])
@pytest.mark.parametrize("table", [TABLE, [[20, 5], [10, 15]], [[1, 0, 2], [0, 3, 0], [1, 0, 0]]])
def test_kappa_and_its_interval_are_those_of_statsmodels(table, quadratic):
    from statsmodels.stats.inter_rater import cohens_kappa

    agreement, peer = (
        cohen_kappa(table, quadratic=quadratic),
        cohens_kappa(table, wt="quadratic" if quadratic else None),
    )
    values = (agreement.value, agreement.low, agreement.high)
    expected = (peer.kappa, max(peer.kappa_low, -1), min(peer.kappa_upp, 1))
    assert values == pytest.approx(expected, abs=1e-12)
    assert agreement.n == sum(map(sum, table))


def test_answers_to_one_question_do_not_make_an_interval_narrower():
    pairs = [(n % 5, (n + n % 3 // 2) % 5) for n in range(40)]
    table = confusion_table(pairs, 5)
    single = cohen_kappa(table, quadratic=True)
    alone = cohen_kappa(table, quadratic=True, groups=[[pair] for pair in pairs])
    assert astuple(alone) == pytest.approx(astuple(single))
    twice = confusion_table(pairs * 2, 5)
    grouped = cohen_kappa(twice, quadratic=True, groups=[[pair, pair] for pair in pairs])
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))
    assert cohen_kappa(twice, quadratic=True).low > single.low
    repeated = krippendorff_alpha(UNITS * 4, groups=[*range(12)] * 4)
    assert repeated.low < krippendorff_alpha(UNITS * 4).low


def test_kappa_of_chance_is_0():
    agreement = cohen_kappa([[25, 25], [25, 25]], quadratic=False)
    assert agreement.value == pytest.approx(0)
    assert agreement.low < 0 < agreement.high


def test_the_interval_of_perfect_agreement_has_a_width():
    few, many = (cohen_kappa([[n, 0], [0, n]], quadratic=True) for n in (5, 500))
    assert few.value == many.value == few.high == 1
    assert 0.3 < few.low < 0.5 and 0.98 < many.low < 1


@pytest.mark.parametrize("table", [[[7, 0], [0, 0]], [[0, 0], [0, 0]]], ids=["one", "none"])
def test_without_two_categories_kappa_is_not_defined(table):
    agreement = cohen_kappa(table, quadratic=True)
    assert (agreement.n, agreement.value, agreement.low) == (sum(map(sum, table)), None, None)


def test_alpha_of_the_published_example():
    agreement = krippendorff_alpha(UNITS)
    assert agreement.value == pytest.approx(0.849, abs=0.0005)  # interval data
    assert agreement.n == 11  # the twelfth unit has one observer
    assert agreement.low < agreement.value < agreement.high


def test_alpha_of_perfect_agreement_and_of_noise():
    perfect = krippendorff_alpha([[n % 5, n % 5, n % 5] for n in range(50)])
    assert (perfect.value, perfect.low, perfect.high) == (1, None, None)
    drawn = random.Random(1)
    noise = krippendorff_alpha([[drawn.randint(1, 5) for _ in range(3)] for _ in range(400)])
    assert noise.low < 0 < noise.high


def test_alpha_is_not_defined_without_different_scores_or_units():
    assert krippendorff_alpha([[3, 3], [3, 3]]).value is None
    assert krippendorff_alpha([[3], []]).n == 0
    assert krippendorff_alpha([[3, 4]]).low is None


def test_alpha_takes_scores_with_fractions():
    assert krippendorff_alpha([[1.5, 1.4], [4.2, 4.4], [3, 3]]).value > 0.9


def test_the_interval_does_not_change_between_two_runs():
    assert krippendorff_alpha(UNITS) == krippendorff_alpha(UNITS)


def test_a_monotone_map_merges_scores_in_the_wrong_order():
    scores, ratings = [1, 1, 2, 3, 3, 5], [1, 2, 4, 2, 3, 5]
    # 2 -> 4 and 3 -> 2.5 are in the wrong order; together they have the mean 3.
    assert monotone_means(scores, ratings) == [(1, 1.5), (2, 3), (3, 3), (5, 5)]


def test_a_judge_that_is_always_wrong_becomes_constant():
    assert monotone_means([1, 3, 5], [5, 3, 1]) == [(1, 3), (3, 3), (5, 3)]
