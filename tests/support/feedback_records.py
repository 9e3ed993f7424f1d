"""Pieces of feedback for tests."""

from __future__ import annotations

from typing import Any

from phi3_ops.feedback.records import Feedback

TIME = "2026-11-26T17:00:00.000+00:00"


def feedback(**changes: Any) -> Feedback:
    """Return a thumbs up about the capital of France, with these changes."""
    fields: dict[str, Any] = {
        **{"id": "f1", "time": TIME, "who": "ann", "kind": "thumbs_up", "conversation": "c1"},
        **{"turn": 1, "history": (), "question": "Capital of France?", "answer": "Paris."},
        **{"flow": "chat", "flow_version": "1.0.0", "model": "phi", "connection": "phi3"},
    }
    return Feedback(**{**fields, **changes})
