"""A review: order and blinding of answers, what is stored, and how a review goes on."""

from __future__ import annotations

import json

import pytest

from chats import write_rows
from phi3_ops.errors import OpsError
from phi3_ops.review.records import RATING
from phi3_ops.review.session import (
    RefusedJudgementError,
    ReviewSession,
    ReviewSettings,
    choose_rubric,
    load_judgements,
)
from phi3_ops.review.store import append_judgement, read_judgements
from phi3_ops.review.subjects import ReviewedData, load_runs


def positions_of(session, run):
    """Return at which position on the page the answers of a run are."""
    lines = [session.line(position) for position in range(len(session.lines))]
    return [
        [str(answer["text"]).startswith(run) for answer in line["answers"]].index(True)
        for line in lines
        if None not in [answer["text"] for answer in line["answers"]]
    ]


def judged(session, position=0, **content):
    session.judge(position, content)
    return session.line(position)


def test_a_line_has_question_reference_and_answers(open_session):
    line = open_session("base").line(0)
    n = line["number"]
    assert (line["question"], line["reference"]) == (f"What is {n} times 8?", str(n * 8))
    assert [answer["text"] for answer in line["answers"]] == [f"base says {n * 8}"]


def test_the_conversation_is_displayed_and_stored(files):
    history = [{"inputs": {"question": "hi?"}, "outputs": {"answer": "ho."}}]
    write_rows(files / "data.jsonl", [{"question": "And?", "chat_history": history}])
    write_rows(files / "chat.jsonl", [{"line_number": 0, "answer": "No."}])
    runs, data = load_runs(["chat.jsonl"], files / "data.jsonl")
    session = ReviewSession(runs, data, ReviewSettings("relevance"))
    assert session.line(0)["history"] == "user: hi?\n\nassistant: ho."
    judged(session, 0, kind="edit", answer=0, value="Yes.")
    assert read_judgements("chat.jsonl")[0].history == (("user", "hi?"), ("assistant", "ho."))


def test_the_order_of_the_answers_differs_from_line_to_line(open_session):
    positions = positions_of(open_session("base", "tuned"), "tuned")
    assert 8 < sum(positions) < 22
    assert positions == positions_of(open_session("tuned", "base"), "tuned")
    assert positions != positions_of(open_session("base", "tuned", seed=2), "tuned")


def test_the_page_never_gets_the_name_of_a_run(open_session):
    session = open_session("base", "tuned")
    shown = json.dumps([session.overview(), session.line(0), session.line(0, with_scores=True)])
    assert ".jsonl" not in shown


def test_lines_come_in_random_order_and_can_be_a_sample(open_session):
    lines = open_session("base").lines
    assert lines != sorted(lines) and sorted(lines) == list(range(30))
    assert open_session("base", lines=5).lines == lines[:5]


def test_scores_are_hidden_until_the_line_is_judged(open_session):
    session = open_session("base")
    assert session.line(0)["answers"][0]["scores"] is None
    assert session.line(0, with_scores=True)["answers"][0]["scores"]
    answer = judged(session, kind="rating", answer=0, value=4)["answers"][0]
    assert set(answer["scores"]) == {"correctness", "exact_match"}
    assert answer["reasons"] == {"correctness": "It is not 56."}


def test_judgements_are_stored_at_once_and_the_review_goes_on(open_session):
    session = open_session("base")
    judged(session, 0, kind="rating", answer=0, value=4)
    judged(session, 1, kind="edit", answer=0, value="It is 56.")
    judged(session, 1, kind="flag", answer=0, value=True)
    stored = read_judgements("base.jsonl")
    assert [(each.kind, each.rating, each.edited, each.flagged) for each in stored] == [
        ("rating", 4, None, False),
        ("edit", None, "It is 56.", False),
        ("flag", None, None, True),
    ]
    again = open_session("base")
    assert again.overview() == {
        "lines": 30,
        "runs": 1,
        "judged": 2,  # the line that failed has nothing to judge
        "position": 1,
        "ended": False,
    }
    assert again.line(1)["answers"][0]["edited"] == "It is 56."


def test_a_choice_is_a_judgement_of_both_runs(open_session):
    session = open_session("base", "tuned")
    position = session.lines.index(0)
    line = judged(session, position, kind="choice", value=1)
    assert (line["choice"], line["judged"]) == (1, True)
    (of_base,), (of_tuned,) = read_judgements("base.jsonl"), read_judgements("tuned.jsonl")
    assert of_base == of_tuned
    assert of_base.chosen == line["answers"][1]["text"]
    assert of_base.rejected == (line["answers"][0]["text"],)
    assert judged(session, position, kind="choice", value="tie")["choice"] == "tie"
    assert read_judgements("base.jsonl")[0].preferred is None
    assert judged(session, position, kind="choice", value=None)["choice"] is None
    assert read_judgements("base.jsonl") == []


def test_of_a_choice_that_only_one_file_has_the_latest_holds(files, open_session, monkeypatch):
    session = open_session("base", "tuned")
    position = session.lines.index(0)
    judged(session, position, kind="choice", value=0)
    append, calls = append_judgement, []

    def fail_the_second_time(file, judgement):
        calls.append(file)
        if len(calls) == 2:
            raise OpsError("the disk is full")
        append(file, judgement)

    monkeypatch.setattr("phi3_ops.review.session.append_judgement", fail_the_second_time)
    with pytest.raises(OpsError, match="the disk is full"):
        session.judge(position, {"kind": "choice", "value": "tie"})
    for names in (("base.jsonl", "tuned.jsonl"), ("tuned.jsonl", "base.jsonl")):
        (choice,) = load_judgements(load_runs(names, files / "data.jsonl")[0])
        assert choice.preferred is None


def test_a_line_of_two_answers_is_judged_when_both_are_rated(open_session):
    session = open_session("base", "tuned")
    position = session.lines.index(0)
    assert not judged(session, position, kind="rating", answer=0, value=1)["judged"]
    assert judged(session, position, kind="rating", answer=1, value=1)["judged"]
    assert not judged(session, position, kind="rating", answer=1, value=None)["judged"]


def test_a_failed_answer_cannot_be_judged(open_session):
    session = open_session("base", "tuned")
    position = session.lines.index(7)
    failed = [answer["text"] for answer in session.line(position)["answers"]].index(None)
    with pytest.raises(RefusedJudgementError, match="this answer failed"):
        session.judge(position, {"kind": "rating", "answer": failed, "value": 3})
    with pytest.raises(RefusedJudgementError, match="a choice needs two answers"):
        session.judge(position, {"kind": "choice", "value": 0})
    assert judged(session, position, kind="rating", answer=1 - failed, value=3)["judged"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": "praise"},
        {"kind": "rating", "answer": 0, "value": 6},
        {"kind": "rating", "answer": 0, "value": True},
        {"kind": "rating", "answer": 2, "value": 3},
        {"kind": "rating", "answer": "0", "value": 3},
        {"kind": "rating", "value": 3},
        {"kind": "flag", "answer": 0, "value": "yes"},
        {"kind": "edit", "answer": 0, "value": " "},
        {"kind": "edit", "answer": 0, "value": "\0"},
        {"kind": "edit", "answer": 0, "value": 5},
        {"kind": "rating", "answer": 0},
        {"kind": "rating", "answer": 0, "value": 4, "rating": 5},
        {"kind": "edit", "answer": 0, "value": "x" * 100_001},
        {"kind": "edit", "answer": 0, "value": "half \ud800"},
        {"kind": "choice", "value": "both"},
        {"kind": "choice", "value": 2},
    ],
    ids=lambda content: str(content)[:60],
)
def test_a_judgement_that_is_not_valid_is_refused(files, open_session, content):
    session = open_session("base", "tuned")
    with pytest.raises(RefusedJudgementError):
        session.judge(session.lines.index(0), content)
    assert not (files / "base.review.jsonl").exists()


@pytest.mark.parametrize("position", [-1, 30, True, "0"])
def test_a_position_that_does_not_exist_is_refused(open_session, position):
    with pytest.raises(RefusedJudgementError, match="position is"):
        open_session("base").line(position)


def test_the_unchanged_text_is_not_an_edit(open_session):
    session = open_session("base")
    text = session.line(0)["answers"][0]["text"]
    judged(session, kind="edit", answer=0, value="Better.")
    judged(session, kind="edit", answer=0, value=text)
    assert read_judgements("base.jsonl") == []


def test_after_the_end_nothing_can_be_judged(open_session):
    session = open_session("base")
    session.end()
    with pytest.raises(RefusedJudgementError, match="the review has ended"):
        session.judge(0, {"kind": "rating", "answer": 0, "value": 3})


def test_a_judgement_of_an_answer_that_changed_is_left_out(files, open_session):
    session = open_session("base")
    judged(session, session.lines.index(0), kind="rating", answer=0, value=4)
    judged(session, session.lines.index(1), kind="rating", answer=0, value=4)
    text = (files / "base.jsonl").read_text()
    (files / "base.jsonl").write_text(text.replace("base says 0", "base says nothing"))
    runs, _ = load_runs(["base.jsonl"], files / "data.jsonl")
    assert [(each.kind, each.line) for each in load_judgements(runs)] == [(RATING, 1)]


def test_another_rubric_has_its_own_ratings(files, open_session):
    judged(open_session("base"), 0, kind="rating", answer=0, value=4)
    runs, data = load_runs(["base.jsonl"], files / "data.jsonl")
    assert choose_rubric(data, load_judgements(runs), None) == "correctness"
    assert choose_rubric(data, load_judgements(runs), "fluency") == "fluency"


def test_without_references_the_rubric_is_relevance():
    assert choose_rubric(ReviewedData([{"question": "What?"}]), [], None) == "relevance"
    with pytest.raises(OpsError, match="no lines"):
        choose_rubric(ReviewedData([]), [], None)
