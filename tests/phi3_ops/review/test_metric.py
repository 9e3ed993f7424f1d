"""Ratings as a score of `phi3 compare`: of a sample of the lines, by rubric."""

from __future__ import annotations

import pytest

from phi3_ops.comparison.compare import ComparisonSettings, compare_runs
from phi3_ops.comparison.thresholds import Metric, Thresholds
from phi3_ops.errors import OpsError
from phi3_ops.review.metric import add_ratings, is_review_metric, with_review_metrics
from phi3_ops.runs.scored import load_scored_run


def load(files, *names):
    return [load_scored_run(f"{name}.jsonl", files / "data.jsonl") for name in names]


def compare(files, **gates):
    runs = add_ratings(load(files, "base", "tuned"))
    thresholds = with_review_metrics(Thresholds(), ["review"])
    settings = ComparisonSettings(metrics=["review"], gates=gates, resamples=200)
    return compare_runs(runs, thresholds, settings)


def test_the_ratings_of_a_sample_are_compared_and_gated(files, open_session, rate):
    session = open_session("base", "tuned", lines=12)
    rate(session, lambda line, text: 2 if text.startswith("base") else 4)
    comparison = compare(files, review=0.2)
    (entry,) = comparison.comparisons
    assert (entry.result.n, entry.result.baseline_mean, entry.result.mean) == (12, 2, 4) or (
        7 in session.lines
    )
    assert (entry.unscored, entry.gate.verdict) == (0, "pass")
    assert comparison.metrics["review"].range == (1, 5)


def test_a_failed_line_of_the_sample_has_the_worst_rating(files, open_session, rate):
    session = open_session("base", "tuned")
    rate(session, lambda line, text: 4)
    (entry,) = compare(files).comparisons
    assert entry.result.n == 30
    assert entry.result.baseline_mean == pytest.approx((29 * 4 + 1) / 30)


def test_a_line_that_is_rated_in_one_run_only_counts_as_unscored(files, open_session, rate):
    session = open_session("base", "tuned", lines=10)
    rate(session, lambda line, text: 4)
    line = next(line for line in session.lines if line != 7)
    texts = [answer["text"] for answer in session.line(session.lines.index(line))["answers"]]
    index = [text.startswith("base") for text in texts].index(True)
    position = session.lines.index(line)
    session.judge(position, {"kind": "rating", "answer": index, "value": None})
    (entry,) = compare(files, review=0.2).comparisons
    assert entry.unscored == 1
    assert entry.gate.verdict == "inconclusive" and "10.0%" in entry.gate.reason


def test_a_run_without_ratings_is_an_error(files, open_session, rate):
    rate(open_session("base"), lambda line, text: 4)
    with pytest.raises(OpsError, match="no present answer of tuned.jsonl was rated"):
        add_ratings(load(files, "base", "tuned"))


def test_ratings_of_answers_that_changed_do_not_count(files, open_session, rate):
    rate(open_session("base"), lambda line, text: 4)
    text = (files / "base.jsonl").read_text()
    (files / "base.jsonl").write_text(text.replace("base says 0", "base says nothing"))
    (run,) = add_ratings(load(files, "base"))
    assert "review" not in run.scored.rows[0] and run.scored.rows[1]["review"] == 4


def test_with_two_rubrics_each_has_a_score_of_its_name(files, open_session, rate):
    from dataclasses import replace

    session = open_session("base")
    rate(session, lambda line, text: 4)
    session.settings = replace(session.settings, rubric="fluency")
    session.judge(session.lines.index(0), {"kind": "rating", "answer": 0, "value": 1})
    (run,) = add_ratings(load(files, "base"))
    row = run.scored.rows[0]
    assert (row["review.correctness"], row["review.fluency"], "review" in row) == (4, 1, False)


def test_thresholds_of_the_user_are_kept():
    own = Thresholds(metrics={"review": Metric(margin=0.3)})
    assert with_review_metrics(own, ["review"]) == own
    assert with_review_metrics(own, ["review.fluency", "f1"]).metrics["review.fluency"].sampled


def test_names_of_review_metrics():
    names = ("review", "review.fluency", "reviewed", "f1")
    assert [name for name in names if is_review_metric(name)] == ["review", "review.fluency"]
