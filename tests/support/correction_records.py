"""Feedback records with ids, times and conversations of their own, for tests of corrections."""

from __future__ import annotations

import itertools
from typing import Any

from phi3_ops.feedback.records import Feedback, HistoryMessage

_NUMBERS = itertools.count(1)


def feedback(kind: str, question: str, answer: str, **more: Any) -> Feedback:
    """Return a record with its own id and conversation; each is later than the one before.

    Args:
        kind: kind of the feedback.
        question: the question.
        answer: the answer.
        more: further fields; `history` may be a list of (role, content).
    """
    number = next(_NUMBERS)
    history = tuple(HistoryMessage(*pair) for pair in more.pop("history", ()))
    fields = {
        "id": f"id-{number}",
        "time": f"2026-11-26T10:{number // 60 % 60:02}:{number % 60:02}.000+00:00",
        "who": "ann",
        "conversation": f"conversation-{number}",
        "turn": 1,
        "flow": "chat",
        "flow_version": "1.0.0",
        "model": "mine",
        "connection": "phi3",
        **more,
    }
    return Feedback(kind=kind, question=question, answer=answer, history=history, **fields)
