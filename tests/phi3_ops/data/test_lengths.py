"""Summaries and histograms of lengths."""

from __future__ import annotations

import random

import pytest

from phi3_ops.data.lengths import MAX_BINS, LengthSummary, length_histogram, summarise_lengths


def test_a_summary_takes_the_nearest_rank():
    assert summarise_lengths([5]) == LengthSummary(sum=5, p50=5, p95=5, max=5)
    assert summarise_lengths(range(100, 0, -1)) == LengthSummary(sum=5050, p50=50, p95=95, max=100)
    assert summarise_lengths([1, 2, 3]) == LengthSummary(sum=6, p50=2, p95=3, max=3)


@pytest.mark.parametrize("seed", range(5))
def test_every_length_is_in_one_bin(seed):
    rng = random.Random(seed)
    lengths = [int(rng.expovariate(1 / 300)) for _ in range(500)]
    bins = length_histogram(lengths)
    assert sum(entry.total for entry in bins) == len(lengths)
    assert len(bins) <= MAX_BINS + 1
    for entry in bins:
        assert entry.total == sum(entry.first <= length <= entry.last for length in lengths)
    assert all(left.last + 1 == right.first for left, right in zip(bins, bins[1:]))


def test_the_last_bin_contains_the_far_tail():
    bins = length_histogram([1] * 99 + [10_000])
    assert bins[0] == (1, 1, 99) and bins[-1] == (10, 10_000, 1)
