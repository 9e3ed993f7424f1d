"""Feedback of users on answers: the records, and the store that keeps them.

`phi3 serve --feedback` writes the records, `phi3 feedback` lists, exports and deletes them, and
`phi3 data` makes training data from them. This room may import `phi3_tools`, `files`, `network` and the
top-level modules.
"""

from __future__ import annotations

from .export import export_feedback
from .records import KINDS, MAX_COMMENT, Feedback, FeedbackFieldError, utc_text
from .store import ConflictError, FeedbackStore, StoreFullError, default_store

__all__ = [
    "ConflictError",
    "Feedback",
    "FeedbackFieldError",
    "FeedbackStore",
    "KINDS",
    "MAX_COMMENT",
    "StoreFullError",
    "default_store",
    "export_feedback",
    "utc_text",
]
