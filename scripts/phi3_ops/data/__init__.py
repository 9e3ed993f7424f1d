"""Training and test data: read chats from files or the hub, check, split, write and report them.

This room may import the top-level modules, `files` and phi3_tools.
"""

from __future__ import annotations

from .checks import OVER_LONG
from .columns import UnclearColumnsError
from .formats import CSV_COLUMNS
from .prepare import DataOptions, prepare_data
from .report import print_data_report
from .source_rows import TextColumns
from .sources import check_source
from .split import BY_PROMPT, HELD_OUT, TRAINED, UNKNOWN

__all__ = [
    "BY_PROMPT",
    "CSV_COLUMNS",
    "DataOptions",
    "HELD_OUT",
    "OVER_LONG",
    "TRAINED",
    "TextColumns",
    "UNKNOWN",
    "UnclearColumnsError",
    "check_source",
    "prepare_data",
    "print_data_report",
]
