"""What the manifest says of lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

BARS = 10  # of the histogram


def length_summary(numbers: Iterable[int]) -> dict[str, int]:
    """Sum, median, 95th percentile (nearest rank) and maximum."""
    ranked = sorted(numbers)
    rank = {"p50": 50, "p95": 95, "max": 100}
    return {"sum": sum(ranked)} | {
        name: ranked[-(-len(ranked) * percent // 100) - 1] for name, percent in rank.items()
    }


def length_histogram(numbers: Iterable[int]) -> list[list[int]]:
    """From, to (inclusive) and how many, in at most BARS + 1 steps; the last takes the far tail."""
    ranked = sorted(numbers)
    most = ranked[-(-len(ranked) * 99 // 100) - 1]
    step = next(s * 10**k for k in range(20) for s in (1, 2, 5) if s * 10**k * BARS > most)
    bars = Counter(min(number // step, BARS) for number in ranked)
    last = max(bars)
    ends = [(bar + 1) * step - 1 for bar in range(last)] + [max(ranked[-1], (last + 1) * step - 1)]
    first = min(bars)
    return [[bar * step, end, bars[bar]] for bar, end in enumerate(ends) if bar >= first]
