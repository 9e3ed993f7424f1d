"""The summary of a review: ratings, choices, agreement with judges, and the panel."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.review.panel import judges_by_label, panel_scores, write_panel
from phi3_ops.review.subjects import JudgeRun, Verdict
from phi3_ops.review.summary import PANEL, summarise_review
from phi3_ops.review.summary_text import in_words, sections

PARTS = {"one": range(10), "two": range(5, 15), "three": range(10, 20)}


def summary_of(session, runs=None):
    return summarise_review(runs or session.runs, session.data, session.judgements, "correctness")


def with_judges(run, *judges):
    return replace(run, judges=judges)


def judge(name, score, lines=range(30)):
    scores = {"correctness": {line: float(score(line)) for line in lines}}
    return JudgeRun(name, name, {"flow": name}, scores)


def test_ratings_are_counted_by_run(open_session, rate):
    session = open_session("base", "tuned")
    rate(session, lambda line, text: 2 if text.startswith("base") else 4)
    session.judge(0, {"kind": "flag", "answer": 0, "value": True})
    base, tuned = summary_of(session).runs
    assert (base.run, base.rated, base.mean, base.stderr) == ("base.jsonl", 29, 2, 0)
    assert (tuned.rated, tuned.mean, base.flagged + tuned.flagged) == (30, 4, 1)


def test_without_ratings_there_is_no_mean(open_session):
    summary = summary_of(open_session("base"))
    assert (summary.runs[0].mean, summary.runs[0].stderr, summary.choices) == (None, None, [])
    assert summary.judges[0].kappa.n == 0
    assert "no common line" in in_words(summary.judges[0].kappa)


def test_a_judge_that_agrees_and_one_that_does_not(open_session, rate):
    session = open_session("base")
    rate(session, lambda line, text: line % 5 + 1)
    (agreement,) = summary_of(session).judges
    assert (agreement.judge, agreement.kappa.value, agreement.bias) == ("base.jsonl", 1, 0)
    assert agreement.disagreements == []
    assert [row[index] for index, row in enumerate(agreement.table)] == [6, 6, 5, 6, 6]
    rate(session, lambda line, text: 5 - line % 5)
    (agreement,) = summary_of(session).judges
    assert agreement.kappa.value == pytest.approx(-1, abs=0.05)
    first = agreement.disagreements[0]
    assert (first.line, first.reviewer, first.judge) == (0, "5", "1: It is not 56.")


def test_the_same_judge_of_two_runs_is_one_judge(open_session, rate):
    session = open_session("base", "tuned")
    rate(session, lambda line, text: 3)
    runs = [with_judges(run, judge("judge", lambda line: 3)) for run in session.runs]
    (agreement,) = summary_of(session, runs).judges
    assert (agreement.judge, agreement.kappa.n, agreement.kappa.value) == ("judge", 59, None)
    assert "all ratings are the same" in in_words(agreement.kappa)


def test_judges_of_one_label_are_told_apart(open_session):
    run = open_session("base").runs[0]
    others = [
        JudgeRun(name, "judge", {"connection": name}, {"correctness": {0: 3.0}})
        for name in ("one", "two")
    ]
    assert list(judges_by_label([with_judges(run, *others)])) == ["judge (one)", "judge (two)"]


def test_choices_are_counted_and_tested(open_session):
    session = open_session("base", "tuned")
    for position, line in enumerate(session.lines):
        texts = [str(answer["text"]) for answer in session.line(position)["answers"]]
        if "None" not in texts:
            index = [text.startswith("tuned") for text in texts].index(True)
            value = "tie" if line < 5 else index
            session.judge(position, {"kind": "choice", "value": value})
    (choices,) = summary_of(session).choices
    assert (choices.runs, choices.wins, choices.ties) == (("base.jsonl", "tuned.jsonl"), (0, 24), 5)
    assert choices.p_value == pytest.approx(2**-23)


def test_a_pairwise_judge_is_compared_with_the_choices(open_session):
    session = open_session("base", "tuned")
    base, tuned = session.runs
    for position in range(len(session.lines)):
        if None not in [answer["text"] for answer in session.line(position)["answers"]]:
            session.judge(position, {"kind": "choice", "value": 0})
    first = {choice.line: choice.preferred == base.location.name for choice in session.judgements}
    verdicts = {
        line: Verdict(base.answers[line], tuned.answers[line], "answer" if is_base else "answer_b")
        for line, is_base in first.items()
    }
    verdicts[0] = replace(verdicts[0], winner="tie")
    verdicts[1] = replace(verdicts[1], answer_b="another text")
    pairwise = JudgeRun("pairs", "pairs", {}, {}, verdicts=verdicts)
    agreement = summary_of(session, [with_judges(base, pairwise), tuned]).judges[-1]
    assert (agreement.scale, agreement.kappa.n) == ("pairs", 28)
    assert [each.line for each in agreement.disagreements] == [0]
    assert agreement.kappa.value > 0.6  # by the order of the answers, which differs with the folder
    assert sum(agreement.table[2]) == 0 and sum(row[2] for row in agreement.table) == 1


def test_choices_of_other_pairs_of_runs_are_not_lost(open_session):
    session = open_session("base", "tuned")
    base, tuned = session.runs
    session.judge(session.lines.index(0), {"kind": "choice", "value": "tie"})
    (choice,) = session.judgements
    third = replace(choice.answers[1], run="third", text="another answer")
    other = replace(choice, answers=(choice.answers[0], third))
    verdict = Verdict(base.answers[0], tuned.answers[0], "tie")
    pairwise = JudgeRun("pairs", "pairs", {}, {}, verdicts={0: verdict})
    runs = [with_judges(base, pairwise), tuned]
    summary = summarise_review(runs, session.data, [choice, other], "correctness")
    assert summary.judges[-1].kappa.n == 1


def test_a_panel_has_a_mean_and_an_agreement(open_session, rate, tmp_path):
    session = open_session("tuned")
    rate(session, lambda line, text: line % 5 + 1)
    one = judge("one", lambda line: line % 5 + 1)
    two = judge("two", lambda line: min(line % 5 + 2, 5), range(20))
    run = with_judges(session.runs[0], one, two)
    summary = summary_of(session, [run])
    assert [each.judge for each in summary.judges] == ["one", "two", PANEL]
    assert summary.judges[2].kappa.n == 20
    (panel,) = summary.panels
    assert (panel.judges, panel.alpha.n) == (("one", "two"), 20)
    assert 0.7 < panel.alpha.value < 1
    assert panel_scores(run, "correctness")[0] == 1.5
    assert write_panel(tmp_path / "panel.jsonl", [run]) == ["correctness"]
    rows = [json.loads(line) for line in (tmp_path / "panel.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and rows[0] == {"line_number": 0, "correctness": 1.5}
    with pytest.raises(OpsError, match="exists already"):
        write_panel(tmp_path / "panel.jsonl", [run])


def test_judges_without_a_common_line_are_not_a_panel(open_session, tmp_path):
    judges = [judge(name, lambda line: line % 5 + 1, lines) for name, lines in PARTS.items()]
    run = with_judges(open_session("tuned").runs[0], *judges)
    with pytest.raises(OpsError, match="no line that all judges scored"):
        write_panel(tmp_path / "panel.jsonl", [run])
    assert not (tmp_path / "panel.jsonl").exists()


def test_one_judge_is_not_a_panel(open_session, tmp_path):
    session = open_session("base", "tuned")
    with pytest.raises(OpsError, match="does not have scores of two judges"):
        write_panel(tmp_path / "panel.jsonl", session.runs[:1])
    with pytest.raises(OpsError, match="2 runs given"):
        write_panel(tmp_path / "panel.jsonl", session.runs)


def test_the_summary_is_json_and_text(open_session, rate):
    session = open_session("base", "tuned")
    rate(session, lambda line, text: line % 4 + 1)
    summary = summary_of(session)
    document = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert document["judges"][0]["kappa"]["n"] == 29
    titles = [section["title"] for section in sections(summary)]
    assert titles[:2] == ["Review", "Agreement with base.jsonl: correctness"]
    assert json.dumps(sections(summary), allow_nan=False)
