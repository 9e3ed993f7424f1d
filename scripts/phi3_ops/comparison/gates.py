"""Gates: whether a run is, with certainty, not worse than the baseline by more than a margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import OpsError
from .paired_stats import TIE
from .thresholds import Thresholds

PASS, REGRESSION, INCONCLUSIVE = "pass", "regression", "inconclusive"
EXIT_CODES = {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 2}
WORST_FIRST = (REGRESSION, INCONCLUSIVE, PASS)
ALL_METRICS = "all"  # in a gate, the name for every score that has a margin in the thresholds


@dataclass(frozen=True)
class GateVerdict:
    """The verdict on one score of one run.

    Attributes:
        margin: how much worse than the baseline is still accepted, 0 or more.
        verdict: `PASS`, `REGRESSION` or `INCONCLUSIVE`.
        reason: the reason for the verdict, in words.
    """

    margin: float
    verdict: str
    reason: str


@dataclass(frozen=True)
class GateSummary:
    """The verdict on all gated scores: the worst of their verdicts."""

    verdict: str

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 for a regression, 2 if the result is inconclusive."""
        return EXIT_CODES[self.verdict]


def summarise_gates(verdicts: Sequence[GateVerdict]) -> GateSummary | None:
    """Return the worst of some verdicts; None without verdicts."""
    by_severity = sorted((gate.verdict for gate in verdicts), key=WORST_FIRST.index)
    return GateSummary(by_severity[0]) if by_severity else None


def resolve_margins(
    gates: Mapping[str, float | None], names: Sequence[str], thresholds: Thresholds
) -> dict[str, float]:
    """Return the margin of each gated score.

    Args:
        gates: score -> margin, where None means the margin in the thresholds.
        names: names of the scores that are compared.
        thresholds: margins and directions of the scores.

    Raises:
        OpsError: a score has no margin, or neither direction of a score is better.
    """
    requested = dict(gates)
    if ALL_METRICS in requested:
        del requested[ALL_METRICS]
        margins = {name: thresholds.metric(name).margin for name in names}
        requested = {**{name: m for name, m in margins.items() if m is not None}, **requested}
        if not requested:
            raise OpsError("no score has a margin in the thresholds", "Give --gate METRIC:MARGIN.")
    return {name: _margin(name, margin, thresholds) for name, margin in requested.items()}


def _margin(name: str, margin: float | None, thresholds: Thresholds) -> float:
    metric = thresholds.metric(name)
    margin = metric.margin if margin is None else margin
    if metric.higher_is_better is None:
        raise OpsError(f"{name} is neither better nor worse", "Gate on another score.")
    if margin is None:
        raise OpsError(f"{name} has no margin in the thresholds", f"Give --gate {name}:MARGIN.")
    return margin


def describe_failures(failed: Mapping[str, int], lines: int, max_failed: float) -> str | None:
    """Return in words which runs have more failed lines than a gate accepts, or None.

    Args:
        failed: letter of a run -> its number of failed lines.
        lines: number of lines in the data.
        max_failed: largest accepted share of failed lines, 0 to 1.
    """
    excessive = [
        f"{count:,} of {lines:,} lines of {letter}"
        for letter, count in failed.items()
        if count > lines * max_failed
    ]
    return f"{' and '.join(excessive)} failed; {max_failed:.0%} is accepted" if excessive else None


def decide_gate(
    improvement: tuple[float | None, float | None],
    margin: float,
    *,
    unscored: float,
    max_unscored: float,
) -> GateVerdict:
    """Decide whether a run is, with certainty, not worse than the baseline by more than a margin.

    Args:
        improvement: interval of how much better the run is; (None, None) if it cannot be computed.
        margin: how much worse is still accepted, 0 or more.
        unscored: share of the lines that have no score, 0 to 1.
        max_unscored: largest share of lines without a score at which the other lines still decide.
    """
    verdict, reason = _decide(*improvement, margin, unscored, max_unscored)
    return GateVerdict(margin, verdict, reason)


def _decide(
    low: float | None, high: float | None, margin: float, unscored: float, max_unscored: float
) -> tuple[str, str]:
    if unscored > max_unscored:
        reason = f"{unscored:.1%} of the lines have no score; {max_unscored:.0%} is accepted"
        return INCONCLUSIVE, reason
    if low is None or high is None:
        return INCONCLUSIVE, "fewer than two lines to compare"
    accepted = f"up to {margin:.4g} worse is accepted"
    if low >= -margin - TIE:
        return PASS, f"at worst {_in_words(low)}; {accepted}"
    if high < -margin - TIE:
        return REGRESSION, f"at best {_in_words(high)}; {accepted}"
    return INCONCLUSIVE, f"{_in_words(low)} to {_in_words(high)}; {accepted}"


def _in_words(improvement: float) -> str:
    if not improvement:
        return "as good"
    return f"{abs(improvement):.4g} {'worse' if improvement < 0 else 'better'}"
