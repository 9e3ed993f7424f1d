"""Summaries and histograms of lengths, as the manifest contains them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

MAX_BINS = 10  # of the histogram, without the bin of the longest


@dataclass(frozen=True)
class LengthSummary:
    """Sum, median, 95th percentile (nearest rank) and maximum of some lengths."""

    sum: int
    p50: int
    p95: int
    max: int


class LengthBin(NamedTuple):
    """A bin of a histogram: the smallest and the largest length in it, and the number of lengths."""

    first: int
    last: int
    total: int


def summarise_lengths(lengths: Iterable[int]) -> LengthSummary:
    """Return the summary of one or more lengths."""
    ranked = sorted(lengths)

    def percentile(percent: int) -> int:
        return ranked[-(-len(ranked) * percent // 100) - 1]

    return LengthSummary(sum(ranked), percentile(50), percentile(95), ranked[-1])


def length_histogram(lengths: Iterable[int]) -> list[LengthBin]:
    """Return a histogram of one or more lengths.

    It has at most MAX_BINS + 1 bins. All lengths above the last regular bin are in the last bin.
    """
    ranked = sorted(lengths)
    p99 = ranked[-(-len(ranked) * 99 // 100) - 1]
    width = next(s * 10**k for k in range(20) for s in (1, 2, 5) if s * 10**k * MAX_BINS > p99)
    counts = Counter(min(length // width, MAX_BINS) for length in ranked)
    last = max(counts)
    return [
        LengthBin(
            first=index * width,
            last=max(ranked[-1] if index == last else 0, (index + 1) * width - 1),
            total=counts[index],
        )
        for index in range(min(counts), last + 1)
    ]
