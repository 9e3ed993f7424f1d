"""The verdict of a gate, from an interval, a margin and the share of lines without a score."""

from __future__ import annotations

import pytest

from phi3_ops.comparison.gates import (
    ALL_METRICS,
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    GateVerdict,
    decide_gate,
    resolve_margins,
    summarise_gates,
)
from phi3_ops.comparison.thresholds import Metric, Thresholds
from phi3_ops.errors import OpsError


@pytest.mark.parametrize(
    ("improvement", "margin", "unscored", "verdict"),
    [
        ((-0.02, 0.1), 0.02, 0, PASS),
        ((0.01, 0.1), 0, 0, PASS),
        ((0.0, 0.0), 0, 0, PASS),
        ((-0.03, 0.1), 0.02, 0, INCONCLUSIVE),
        ((-0.3, -0.02), 0.02, 0, INCONCLUSIVE),
        ((-0.3, -0.021), 0.02, 0, REGRESSION),
        ((0.1, 0.2), 0.02, 0.05, PASS),
        ((0.1, 0.2), 0.02, 0.051, INCONCLUSIVE),
        ((-0.9, -0.8), 0.02, 0.051, INCONCLUSIVE),
        ((None, None), 0.02, 0, INCONCLUSIVE),
    ],
)
def test_verdicts(improvement, margin, unscored, verdict):
    gate = decide_gate(improvement, margin, unscored=unscored, max_unscored=0.05)
    assert gate.verdict == verdict and gate.reason
    assert gate.margin == margin


@pytest.mark.parametrize(
    ("improvement", "reason"),
    [
        ((-0.01, 0.1), "at worst 0.01 worse; up to 0.02 worse is accepted"),
        ((0.0, 0.1), "at worst as good; up to 0.02 worse is accepted"),
        ((-0.3, -0.1), "at best 0.1 worse; up to 0.02 worse is accepted"),
        ((-0.3, 0.1), "0.3 worse to 0.1 better; up to 0.02 worse is accepted"),
        ((None, None), "fewer than two lines to compare"),
    ],
)
def test_the_reason_names_the_interval_and_the_margin(improvement, reason):
    assert decide_gate(improvement, 0.02, unscored=0, max_unscored=0.05).reason == reason


def test_the_reason_names_the_share_of_unscored_lines():
    gate = decide_gate((0.1, 0.2), 0.02, unscored=0.25, max_unscored=0.05)
    assert gate.reason == "25.0% of the lines have no score; 5% is accepted"


@pytest.mark.parametrize(
    ("verdicts", "worst", "exit_code"),
    [
        ([PASS], PASS, 0),
        ([PASS, INCONCLUSIVE], INCONCLUSIVE, 2),
        ([INCONCLUSIVE, REGRESSION, PASS], REGRESSION, 1),
    ],
)
def test_the_summary_is_the_worst_verdict(verdicts, worst, exit_code):
    summary = summarise_gates([GateVerdict(0.0, verdict, "") for verdict in verdicts])
    assert (summary.verdict, summary.exit_code) == (worst, exit_code)


def test_no_gate_has_no_summary():
    assert summarise_gates([]) is None


class TestMargins:
    thresholds = Thresholds(
        metrics={"a": Metric(margin=0.3), "b": Metric(), "c": Metric(higher_is_better=None)}
    )

    def resolve(self, **gates):
        return resolve_margins(gates, ["a", "b", "c"], self.thresholds)

    def test_a_given_margin_wins(self):
        assert self.resolve(a=0.1, b=0.2) == {"a": 0.1, "b": 0.2}
        assert self.resolve(a=None) == {"a": 0.3}

    def test_all_takes_every_score_with_a_margin(self):
        assert self.resolve(**{ALL_METRICS: None}) == {"a": 0.3}
        assert self.resolve(**{ALL_METRICS: None, "a": 0.1, "b": 0.2}) == {"a": 0.1, "b": 0.2}

    def test_a_score_without_margin_or_direction_is_refused(self):
        with pytest.raises(
            OpsError, match="b has no margin in the thresholds. Give --gate b:MARGIN"
        ):
            self.resolve(b=None)
        with pytest.raises(OpsError, match="c is neither better nor worse"):
            self.resolve(c=0.1)
        with pytest.raises(OpsError, match="no score has a margin"):
            resolve_margins({ALL_METRICS: None}, ["b"], self.thresholds)
