"""Judgements: their JSON, what they say, and which of several holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phi3_ops.review.records import (
    CHOICE,
    EDIT,
    FLAG,
    RATING,
    JudgedAnswer,
    Judgement,
    current_time,
    is_rating,
    latest_judgements,
    new_id,
)

ONE, OTHER = JudgedAnswer("asked", "54"), JudgedAnswer("tuned", "56")


def judgement(kind=RATING, line=0, answers=(ONE,), **fields):
    texts = {"question": "What is 7 times 8?", "reference": "56"}
    return Judgement(new_id(), current_time(), kind, line, answers=answers, **texts, **fields)


RATED = judgement(rating=2)
EDITED = judgement(EDIT, edited="56")
FLAGGED = judgement(FLAG, flagged=True)
CHOSEN = judgement(CHOICE, answers=(ONE, OTHER), preferred="tuned")
EQUAL = judgement(CHOICE, answers=(ONE, OTHER))


@pytest.mark.parametrize(
    "each", [RATED, EDITED, FLAGGED, CHOSEN, EQUAL], ids=lambda each: each.kind
)
def test_a_judgement_is_read_back_as_it_was_written(each):
    assert Judgement.from_json(each.to_json()) == each


def test_a_choice_has_the_chosen_and_the_rejected_text():
    assert (CHOSEN.chosen, CHOSEN.rejected) == ("56", ("54",))
    assert (EQUAL.chosen, EQUAL.rejected) == (None, ())


def test_the_latest_judgement_of_a_subject_holds():
    again = replace(RATED, id=new_id(), rating=4)
    assert latest_judgements([RATED, EDITED, again]) == [EDITED, again]


def test_the_order_of_the_runs_does_not_make_another_choice():
    again = replace(CHOSEN, answers=(OTHER, ONE), preferred="asked")
    assert latest_judgements([CHOSEN, again]) == [again]


@pytest.mark.parametrize(
    "judged, withdrawal",
    [
        (RATED, {"rating": None}),
        (EDITED, {"edited": None}),
        (FLAGGED, {"flagged": False}),
        (CHOSEN, {"withdrawn": True}),
    ],
    ids=["rating", "edit", "flag", "choice"],
)
def test_a_judgement_can_be_withdrawn(judged, withdrawal):
    assert latest_judgements([judged, replace(judged, **withdrawal)]) == []


@pytest.mark.parametrize(
    "field, value",
    [
        ("rating", 6),
        ("rating", True),
        ("rating", 2.0),
        ("kind", "praise"),
        ("line", -1),
        ("line", "0"),
        ("answers", []),
        ("answers", [{"run": "asked"}]),
        ("answers", 3),
        ("preferred", "nobody"),
        ("edited", 5),
        ("question", None),
    ],
)
def test_a_wrong_field_is_refused(field, value):
    with pytest.raises(ValueError, match="kind|rating|line|answers|preferred|field"):
        Judgement.from_json({**RATED.to_json(), field: value})


def test_ratings_by_two_rubrics_are_two_judgements():
    other = replace(RATED, rubric="fluency", rating=5)
    assert latest_judgements([RATED, other]) == [RATED, other]


def test_a_rating_is_a_whole_number_from_1_to_5():
    assert [value for value in (0, 1, 5, 6, 3.0, True, "3", None) if is_rating(value)] == [1, 5]
