"""The rules for one piece of feedback."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from feedback_records import TIME, feedback
from phi3_ops.feedback.records import (
    KINDS,
    MAX_COMMENT,
    MAX_HISTORY,
    MAX_NAME,
    MAX_TEXT,
    Feedback,
    FeedbackFieldError,
    HistoryMessage,
    utc_text,
)

FIELDS_OF_KIND = {
    "thumbs_up": {},
    "thumbs_down": {},
    "edit": {"edited": "Better."},
    "choice": {"chosen": "A", "rejected": "B"},
    "comment": {"comment": "Why?"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_the_same_after_a_way_through_json(kind):
    history = (HistoryMessage("user", "Hi"), HistoryMessage("assistant", "Hello"))
    record = feedback(kind=kind, history=history, **FIELDS_OF_KIND[kind])
    assert Feedback.from_json(record.to_json()) == record
    assert record.to_json()["history"][1] == {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"kind": "stars"}, "kind", "is not one of thumbs_up, thumbs_down, edit, choice, comment"),
        ({"kind": "edit"}, "edited", "is missing, but the kind is edit"),
        ({"kind": "edit", "edited": " \n"}, "edited", "is missing, but the kind is edit"),
        ({"kind": "choice", "chosen": "a"}, "rejected", "is missing, but the kind is choice"),
        ({"kind": "comment"}, "comment", "is missing, but the kind is comment"),
        ({"edited": "x"}, "edited", "belongs to the kind edit, not thumbs_up"),
        ({"rejected": "x"}, "rejected", "belongs to the kind choice, not thumbs_up"),
        ({"conversation": ""}, "conversation", "is missing"),
        ({"turn": 0}, "turn", "is not between 1 and 1000000"),
        ({"turn": 10**30}, "turn", "is not between 1 and 1000000"),
        ({"answer": "\ud800"}, "answer", "contains half of a surrogate pair"),
        ({"answer": None}, "answer", "is not a text"),
        ({"comment": 3}, "comment", "is not a text"),
        ({"question": "x" * (MAX_TEXT + 1)}, "question", f"has more than {MAX_TEXT} characters"),
        (
            {"comment": "x" * (MAX_COMMENT + 1)},
            "comment",
            f"has more than {MAX_COMMENT} characters",
        ),
        ({"who": "x" * (MAX_NAME + 1)}, "who", f"has more than {MAX_NAME} characters"),
        (
            {"history": (HistoryMessage("system", "x"),)},
            "history[0].role",
            "is not one of user, assistant",
        ),
        ({"history": (HistoryMessage("user", None),)}, "history[0].content", "is not a text"),
        (
            {"history": (HistoryMessage("user", "x"),) * (MAX_HISTORY + 1)},
            "history",
            f"has more than {MAX_HISTORY} messages",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)
def test_a_field_that_is_not_valid_is_named(changes, field, problem):
    with pytest.raises(FeedbackFieldError) as error:
        feedback(**changes)
    assert (error.value.field, error.value.problem) == (field, problem)


@pytest.mark.parametrize(
    "time",
    [
        *("yesterday", "2026-11-26T17:00:00", "2026-11-26T17:00:00.000+01:00"),
        *("2026-11-26T17:00:00+00:00", "2026-11-26T17:00:00.000Z"),
    ],
)
def test_times_that_would_not_sort_are_refused(time):
    with pytest.raises(FeedbackFieldError, match="time: is not a time in ISO 8601"):
        feedback(time=time)


def test_a_time_is_written_in_utc():
    moment = datetime(2026, 11, 26, 18, tzinfo=timezone(timedelta(hours=1)))
    assert utc_text(moment) == TIME


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stars": 5}, "stars"),
        ({"id": None}, "id"),
        ({"turn": True}, "turn"),
        ({"turn": "1"}, "turn"),
        ({"history": "text"}, "history"),
        ({"history": [{"role": "user"}]}, "history[0]"),
        ({"history": [{"role": ["user"], "content": "x"}]}, "history[0].role"),
        ({"kind": ["edit"]}, "kind"),
    ],
)
def test_json_of_another_form_is_refused(changes, field):
    with pytest.raises(FeedbackFieldError) as error:
        Feedback.from_json(feedback().to_json() | changes)
    assert error.value.field == field


def test_every_text_is_redacted():
    def redact(text):
        return text.replace("sesame", "…")

    texts = {"question": "sesame?", "answer": "sesame", "edited": "no sesame"}
    history = (HistoryMessage("user", "my key is sesame"),)
    record = feedback(
        kind="edit", comment="sesame!", who="sesame", history=history, **texts
    ).redacted(redact)
    assert "sesame" not in str(record)
    assert record.history[0].content == "my key is …"
