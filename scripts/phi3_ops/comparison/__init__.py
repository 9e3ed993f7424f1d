"""Compare scored runs line by line: paired statistics, gates and the HTML report.

This room needs the extra `[eval]`. It may import `runs` and every room below it.
"""

from __future__ import annotations

from .compare import ComparisonSettings, compare_runs
from .gates import ALL_METRICS
from .page import format_number, format_p_value, format_signed
from .report import render_report
from .results import Comparison, PairedResult
from .thresholds import load_thresholds

__all__ = [
    "ALL_METRICS",
    "Comparison",
    "ComparisonSettings",
    "PairedResult",
    "compare_runs",
    "format_number",
    "format_p_value",
    "format_signed",
    "load_thresholds",
    "render_report",
]
