"""Training and test data: read chats from files or the hub, check, split, write and report them.

This room may import the top-level modules, `files` and phi3_tools.
"""

from __future__ import annotations

from .checks import OVER_LONG, Problem, check_chat
from .columns import UnclearColumnsError
from .formats import CSV_COLUMNS
from .near_duplicates import KnownTexts, comparable_text
from .preferences import as_chat as as_preference_chat
from .prepare import DataOptions, prepare_data
from .report import print_data_report
from .row_questions import has_chats, history_of_row, questions_of_row, read_test_questions
from .source_rows import TextColumns
from .sources import check_source
from .split import BY_PROMPT, HELD_OUT, TRAINED, UNKNOWN

__all__ = [
    "BY_PROMPT",
    "CSV_COLUMNS",
    "DataOptions",
    "HELD_OUT",
    "KnownTexts",
    "OVER_LONG",
    "Problem",
    "TRAINED",
    "TextColumns",
    "UNKNOWN",
    "UnclearColumnsError",
    "as_preference_chat",
    "check_chat",
    "check_source",
    "comparable_text",
    "has_chats",
    "history_of_row",
    "prepare_data",
    "print_data_report",
    "questions_of_row",
    "read_test_questions",
]
