"""Runs are compared line by line, every line counts, and a gate decides only on enough data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from phi3_ops.comparison.compare import ComparisonSettings, compare_runs
from phi3_ops.comparison.gates import INCONCLUSIVE, PASS, REGRESSION
from phi3_ops.comparison.paired_stats import bootstrap_interval
from phi3_ops.comparison.report import render_report
from phi3_ops.comparison.results import FactDifference
from phi3_ops.comparison.thresholds import Metric, Thresholds
from phi3_ops.errors import OpsError
from phi3_ops.runs.scored import ScoredRun
from phi3_ops.runs.store import RunOutputs

QUICK = ComparisonSettings(resamples=500)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path):
    """Makes runs over one data file from their scores; None is a missing line."""

    def make(*columns, name="score", data=None):
        lines = max(map(len, columns))
        rows = data or [
            {"question": f"q{n}", "kind": "odd" if n % 2 else "even"} for n in range(lines)
        ]
        file = write(tmp_path / "data.jsonl", rows)
        return [
            ScoredRun(
                f"run{n}",
                file,
                RunOutputs({i: {name: v} for i, v in enumerate(column) if v is not None}),
            )
            for n, column in enumerate(columns)
        ]

    return make


def compare_one(runs, thresholds=Thresholds(), settings=QUICK):
    (entry,) = compare_runs(runs, thresholds, settings).comparisons
    return entry


def outcomes(entry):
    return entry.result.outcomes.wins, entry.result.outcomes.losses, entry.result.outcomes.ties


# -- joining ---------------------------------------------------------------------------------------


def test_a_missing_line_is_a_failure_and_scores_nothing(table):
    base, other = [1, 1, 0, 0], [1, None, 1, 0]
    entry = compare_one(table(base, other))
    result = entry.result
    assert (result.n, result.baseline_mean, result.mean) == (4, 0.5, 0.5)
    assert outcomes(entry) == (1, 1, 2)
    comparison = compare_runs(table(base, other), settings=QUICK)
    assert [run.failed for run in comparison.runs] == [0, 1]


def test_a_line_missing_in_both_is_a_tie(table):
    entry = compare_one(table([1, None], [1, None]))
    assert (entry.result.n, entry.result.outcomes.ties, entry.result.difference) == (2, 2, 0)


def test_a_run_of_which_every_line_failed_is_compared(table):
    entry = compare_one(table([1, 1, 1], [None, None, None]))
    assert (entry.result.outcomes.losses, entry.result.difference) == (3, -1)


def test_a_failed_line_scores_what_the_thresholds_say(table):
    limits = Thresholds(metrics={"score": Metric(range=(1, 5))})
    assert compare_one(table([3, 3], [3, None]), limits).result.mean == 2
    seconds = Thresholds(metrics={"score": Metric(higher_is_better=False, failed=60)})
    entry = compare_one(table([3, 3], [2, None]), seconds)
    assert entry.result.mean == 31
    assert outcomes(entry) == (1, 1, 0)


@pytest.mark.parametrize("nothing", [math.nan, math.inf, "unparsed", [], None])
def test_a_line_without_a_verdict_is_excluded_and_counted(table, nothing):
    base, other = table([1, 1, 0], [1, 1, 1])
    other.scored.rows[1]["score"] = nothing
    entry = compare_one([base, other])
    assert (entry.result.n, entry.unscored, entry.result.mean) == (2, 1, 1)


def test_a_judge_that_never_gave_a_verdict_decides_nothing(table):
    base, other = table([1, 1, 0], [1, 1, 1])
    for row in other.scored.rows.values():
        row["score"] = None
    comparison = compare_runs([base, other], settings=ComparisonSettings(gates={"score": 1.0}))
    assert comparison.exit_code == 2
    assert comparison.comparisons[0].result.mean is None
    assert render_report(comparison)


def test_an_answer_whose_scoring_failed_is_no_failure_of_the_model(table):
    base, other = table([1, 1, 0], [1, None, 1])
    asked = RunOutputs({line: {"answer": "x"} for line in range(3)})
    entry = compare_one([base, ScoredRun("b", other.data, other.scored, asked)])
    assert (entry.result.n, entry.unscored) == (2, 1)


def test_true_and_false_are_scores(table):
    assert compare_one(table([True, False], [True, True])).result.difference == 0.5


def test_lower_can_be_better(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=False, range=(0, 9))})
    entry = compare_one(table([5, 5, 5], [1, 1, 6]), limits)
    assert outcomes(entry) == (2, 1, 0)
    assert entry.result.difference == pytest.approx(-7 / 3)


def test_a_length_is_neither_won_nor_lost(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=None)})
    entry = compare_one(table([5, 5, 2], [1, 9, None]), limits)
    assert entry.result.outcomes is None and entry.result.n == 2


def test_numbers_are_those_of_the_statistics(table):
    rng = np.random.default_rng(1)
    base, other = rng.random(50), rng.random(50)
    entry = compare_one(table(list(base), list(other)))
    interval = (entry.result.low, entry.result.high)
    assert interval == bootstrap_interval(other - base, resamples=500, seed=1)
    assert entry.result.difference == pytest.approx((other - base).mean())


def test_every_run_is_compared_with_the_first(table):
    runs = table([0, 0, 0], [1, 0, 0], [1, 1, 1])
    entries = compare_runs(runs, settings=QUICK).comparisons
    assert [(entry.run, entry.result.outcomes.wins) for entry in entries] == [("B", 1), ("C", 3)]


def test_only_scores_that_all_have_are_compared(table):
    base, other = table([1, 0], [1, 1])
    base.scored.rows[0]["only_here"] = 1
    assert compare_one([base, other]).metric == "score"


# -- slices ----------------------------------------------------------------------------------------


def test_slices_by_value_and_by_tag(table):
    data = [
        {"kind": "x", "tags": ["short", "easy"]},
        {"kind": "y", "tags": ["short"]},
        {"kind": "x", "tags": []},
    ]
    slices = compare_one(table([0, 0, 0], [1, 0, 1], data=data)).slices
    counts = {
        f"{part.by}={part.value}": (part.result.n, part.result.outcomes.wins) for part in slices
    }
    assert counts == {"kind=x": (2, 2), "kind=y": (1, 0), "tags=easy": (1, 1), "tags=short": (2, 1)}
    assert slices[1].result.low is None  # one line has no interval


def test_slices_by_another_column(table):
    settings = ComparisonSettings(by=["question"], resamples=100)
    assert len(compare_one(table([0, 0], [1, 0]), settings=settings).slices) == 2
    with pytest.raises(OpsError, match="no column 'nowhere'. It has: question, kind"):
        compare_one(table([0, 0], [1, 0]), settings=ComparisonSettings(by=["nowhere"]))
    with pytest.raises(OpsError, match="'question' has 60 different values"):
        compare_one(table([0] * 60, [1] * 60), settings=settings)


# -- refused comparisons --------------------------------------------------------------------------


def test_other_data_are_refused(table, tmp_path):
    base, other = table([1, 0], [1, 1])
    elsewhere = write(tmp_path / "elsewhere.jsonl", [{"question": "x"}, {"question": "y"}])
    with pytest.raises(
        OpsError, match="run0 ran over .*data.jsonl, and run1 over .*elsewhere.jsonl"
    ):
        compare_runs([base, ScoredRun("run1", elsewhere, other.scored)])
    elsewhere.write_bytes(base.data.read_bytes())
    assert compare_one([base, ScoredRun("run1", elsewhere, other.scored)]).result.n == 2


def test_the_error_for_a_run_without_scores_names_the_command(table):
    base, other = table([1, 0], [1, 0])
    other = ScoredRun(other.name, other.data, RunOutputs({0: {"answer": "text only"}}))
    with pytest.raises(OpsError, match="run1 has no scores. Score it first: pf run create --flow"):
        compare_runs([base, other])


def test_an_unknown_score_is_named(table):
    with pytest.raises(OpsError, match="no score 'speed' in common. They have: score"):
        compare_runs(table([1], [1]), settings=ComparisonSettings(metrics=["speed"]))
    with pytest.raises(OpsError, match="no score 'speed' in common"):
        compare_runs(table([1], [1]), settings=ComparisonSettings(gates={"speed": 0.1}))


def test_recorded_differences_are_listed(table):
    base, other = table([1, 0], [1, 1])
    facts = [{"flow": "qa 1.0", "answer.connection": name} for name in ("phi3", "phi3-base")]
    runs = [
        ScoredRun(r.name, r.data, RunOutputs(r.scored.rows, facts=f))
        for r, f in zip((base, other), facts)
    ]
    comparison = compare_runs(runs, settings=QUICK)
    assert comparison.differences == [FactDifference("answer.connection", ["phi3", "phi3-base"])]


# -- the gate --------------------------------------------------------------------------------------


def gate(runs, thresholds=Thresholds(), **gates):
    return compare_runs(runs, thresholds, ComparisonSettings(gates=gates, resamples=500))


def test_the_worst_verdict_wins(table):
    same, worse = [1] * 40, [0] * 40
    unsure = [0, 1] * 20
    assert gate(table(same, same), score=0.0).exit_code == 0
    assert gate(table(same, worse), score=0.5).exit_code == 1
    assert gate(table(unsure, unsure[::-1]), score=0.0).exit_code == 2
    assert gate(table(same, same, unsure, worse), score=0.5).gate.verdict == REGRESSION
    without_gate = compare_runs(table(same, worse), settings=QUICK)
    assert without_gate.gate is None and without_gate.exit_code == 0


def test_margins_of_the_thresholds(table):
    limits = Thresholds(metrics={"score": Metric(margin=0.3)})
    base, other = table([1] * 60, [1] * 50 + [0] * 10)
    all_metrics = ComparisonSettings(gates={"all": None})
    (entry,) = compare_runs([base, other], limits, all_metrics).comparisons
    assert (entry.gate.margin, entry.gate.verdict) == (0.3, PASS)
    assert gate([base, other], limits, score=None).exit_code == 0
    assert gate([base, other], limits, score=0.01).exit_code == 1
    with pytest.raises(OpsError, match="no score has a margin"):
        gate([base, other], all=None)
    with pytest.raises(
        OpsError, match="score has no margin in the thresholds. Give --gate score:MARGIN"
    ):
        gate([base, other], score=None)


def test_a_run_with_too_many_failed_lines_decides_nothing(table):
    failed, answered = [None] * 40, [0.0] * 40
    (entry,) = gate(table(answered, failed), score=0.02).comparisons
    assert entry.gate.verdict == INCONCLUSIVE
    assert entry.gate.reason == "40 of 40 lines of B failed; 5% is accepted"
    some = [*failed[:39], 1.0]
    comparison = gate(table(some, some), score=0.02)
    assert comparison.exit_code == 2
    reason = "39 of 40 lines of A and 39 of 40 lines of B failed; 5% is accepted"
    assert comparison.comparisons[0].gate.reason == reason


def test_runs_of_which_every_line_failed_are_not_compared(table):
    with pytest.raises(OpsError, match="all lines of run0 and run1 failed"):
        gate(table([None, None], [None, None]), score=0.02)


@pytest.mark.parametrize(("failed", "verdict"), [(2, PASS), (3, INCONCLUSIVE)])
def test_a_few_failed_lines_are_accepted(table, failed, verdict):
    other = [None] * failed + [1] * (40 - failed)
    (entry,) = gate(table([1] * 40, other), score=0.5).comparisons
    assert entry.gate.verdict == verdict
    tolerant = Thresholds(max_failed=0.1)
    assert gate(table([1] * 40, other), tolerant, score=0.5).exit_code == 0


def test_a_run_as_bad_as_a_baseline_of_zero_is_named(table):
    (entry,) = gate(table([0] * 40, [0] * 40), score=0.02).comparisons
    assert entry.gate.verdict == PASS
    assert entry.gate.reason.endswith("every line of both runs has the worst score, 0")
    (entry,) = gate(table([0] * 40, [1] * 40), score=0.02).comparisons
    assert "worst score" not in entry.gate.reason


def test_lower_is_better_at_the_gate_too(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=False, range=(0, 9))})
    runs = table([5] * 30, [1] * 30)
    assert gate(runs, limits, score=0.1).exit_code == 0
    assert gate(runs[::-1], limits, score=0.1).exit_code == 1


def test_a_length_cannot_be_gated(table):
    limits = Thresholds(metrics={"score": Metric(higher_is_better=None)})
    with pytest.raises(OpsError, match="neither better nor worse"):
        gate(table([5, 5], [1, 1]), limits, score=0.1)
