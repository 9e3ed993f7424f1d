"""Training rows from documents: passages, questions and answers by a teacher, checks, and a report.

It needs the extra `[documents]`. It may import `comparison` and every room below it.
"""

from __future__ import annotations

from .make import DocumentOptions, Progress, make_document_data
from .output import DocumentFiles
from .results import DocumentData
from .teacher import MIN_CALLS

__all__ = [
    "DocumentData",
    "DocumentFiles",
    "DocumentOptions",
    "MIN_CALLS",
    "Progress",
    "make_document_data",
]
