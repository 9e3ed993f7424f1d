"""The metrics of a batch of verdicts or preferences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_endpoint import USAGE
from phi3_tools.evaluation.summary import summarise, summarise_pairs


def verdict(score, status="scored", calls=1, usage=USAGE):
    return {"score": score, "status": status, "calls": calls, "usage": usage}


def test_a_batch_of_verdicts():
    lines = [
        {"fluency": verdict(5.0), "correctness": verdict(None, "skipped", 0, None)},
        {"fluency": verdict(2.0), "correctness": verdict(None, "skipped", 0, None)},
        {"fluency": verdict(None, "unparsed", 2), "correctness": verdict(None, "skipped", 0, None)},
        None,
    ]
    assert summarise(lines) == {
        "lines": 4,
        "failures": 1,
        "fluency": 3.5,
        "fluency_stderr": 1.5,
        "fluency_low": (5 + 2 + 1 + 1) / 4,
        "fluency_high": (5 + 2 + 5 + 5) / 4,
        "fluency_scored": 2,
        "fluency_unparsed": 1,
        "fluency_skipped": 0,
        "fluency_unparsed_rate": 1 / 3,
        "correctness_scored": 0,
        "correctness_unparsed": 0,
        "correctness_skipped": 3,
        "judge_calls": 4,
        "judge_tokens": 330,
    }


def test_a_batch_without_a_score_has_no_mean():
    metrics = summarise([{"fluency": verdict(None, "unparsed", 2, None)}])
    assert "fluency" not in metrics and "judge_tokens" not in metrics
    assert (metrics["fluency_low"], metrics["fluency_high"]) == (1.0, 5.0)
    assert metrics["fluency_unparsed_rate"] == 1.0
    assert summarise([]) == {"lines": 0, "failures": 0, "judge_calls": 0}
    assert summarise([None]) == {"lines": 1, "failures": 1, "judge_calls": 0}


@given(
    st.lists(
        st.none()
        | st.builds(lambda s: {"r": verdict(s)}, st.floats(1, 5))
        | st.sampled_from(["unparsed", "skipped"]).map(lambda s: {"r": verdict(None, s)})
    )
)
def test_every_metric_is_a_number_and_the_bounds_hold(lines):
    metrics = summarise(lines)
    assert all(math.isfinite(value) for value in metrics.values())
    if "r" in metrics:
        assert 1 <= metrics["r_low"] <= metrics["r"] + 1e-9
        assert metrics["r"] <= metrics["r_high"] + 1e-9 and metrics["r_high"] <= 5
    if any(lines):
        counted = sum(metrics[f"r_{status}"] for status in ("scored", "unparsed", "skipped"))
        assert counted + metrics["failures"] == metrics["lines"]


def preference(winner, agreed=True, status="scored"):
    return {"winner": winner, "agreed": agreed, **verdict(None, status, 2)}


def test_a_batch_of_pairs():
    metrics = summarise_pairs(
        [
            preference("answer"),
            preference("answer"),
            preference("answer_b"),
            preference("tie", False),
            preference(None, None, "unparsed"),
            preference(None, None, "skipped"),
            None,
        ]
    )
    assert metrics == {
        "lines": 7,
        "failures": 1,
        "scored": 4,
        "unparsed": 1,
        "skipped": 1,
        "wins": 2,
        "losses": 1,
        "ties": 1,
        "disagreements": 1,
        "win_rate": 2.5 / 4,
        "win_rate_stderr": pytest.approx(0.2394, abs=1e-4),
        "win_rate_low": 2.5 / 6,
        "win_rate_high": 4.5 / 6,
        "disagreement_rate": 0.25,
        "unparsed_rate": 0.2,
        "judge_calls": 12,
        "judge_tokens": 660,
    }
    assert "win_rate" not in summarise_pairs([None, preference(None, None, "skipped")])
