"""What the judgements of a review become."""

from dataclasses import replace

from phi3_ops.corrections.from_review import examples_of_review
from phi3_ops.review.records import CHOICE, EDIT, FLAG, RATING, JudgedAnswer, Judgement

A, B, C = (JudgedAnswer(name, f"answer of {name}") for name in "abc")


def judgement(kind, *answers, line=0, **more):
    time = f"2026-11-26T10:00:{line:02}+00:00"
    return Judgement(
        f"id{line}{kind}", time, kind, line, f"question {line}?", None, answers, **more
    )


def test_edits_and_choices_become_examples_and_the_rest_is_counted():
    judgements = [
        judgement(EDIT, A, line=1, edited="better"),
        judgement(EDIT, A, line=2, edited="answer of a"),
        judgement(CHOICE, A, B, C, line=3, preferred="b"),
        judgement(CHOICE, A, B, line=4),
        judgement(CHOICE, A, JudgedAnswer("b", "answer of a"), line=5, preferred="a"),
        judgement(RATING, A, line=6, rating=5),
        judgement(FLAG, A, line=7, flagged=True),
    ]
    source = examples_of_review(judgements, "a")
    assert [(e.question, e.chosen, e.rejected) for e in source.examples] == [
        ("question 1?", "better", None),
        ("question 1?", "better", "answer of a"),
        ("question 3?", "answer of b", "answer of a"),
        ("question 3?", "answer of b", "answer of c"),
    ]
    assert source.unused == {
        **{"correction without a change": 1, "no answer is better": 1, "equal answers": 1},
        **{"rating": 1, "flag": 1},
    }
    assert source.used + source.unused.total() == source.records == 7
    assert source.examples[0].origin.to_json() == {
        **{"source": "review", "name": "a", "record": "id1edit", "basis": "edit"},
        **{"time": "2026-11-26T10:00:01+00:00", "line": "1"},
    }


def test_the_conversation_is_part_of_the_examples():
    history = (("user", "hi?"), ("assistant", "ho."))
    edited = judgement(EDIT, A, edited="better", history=history)
    assert Judgement.from_json(edited.to_json()) == edited
    row, pair = examples_of_review([edited], "a").examples
    assert row.questions == pair.questions == ["hi?", "question 0?"]


def test_a_line_without_a_question_gives_no_example():
    edited = replace(judgement(EDIT, A, edited="better"), question="")
    source = examples_of_review([edited], "a")
    assert (source.examples, source.unused) == ([], {"no question": 1})
