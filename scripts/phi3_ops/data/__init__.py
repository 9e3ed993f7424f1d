"""Training and test data: read chats from files or the hub, check, split, write and report them.

This room may import the top-level modules only.
"""

from __future__ import annotations

from .checks import OVER_LONG
from .formats import CSV_COLUMNS
from .prepare import DataOptions, prepare_data
from .report import print_data_report
from .split import HELD_OUT, TRAINED, UNKNOWN

__all__ = [
    "CSV_COLUMNS",
    "DataOptions",
    "HELD_OUT",
    "OVER_LONG",
    "TRAINED",
    "UNKNOWN",
    "prepare_data",
    "print_data_report",
]
