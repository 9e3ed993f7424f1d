"""Compare scored runs line by line: paired statistics, gates and the HTML report.

This room needs the extra `[eval]`. It may import `runs` and every room below it.
"""

from __future__ import annotations

from .compare import ComparisonSettings, compare_runs
from .gates import ALL_METRICS
from .page import format_number, format_p_value, format_signed, render_page
from .paired_stats import CONFIDENCE, RESAMPLES, bootstrap_interval, count_outcomes, sign_test
from .report import render_report
from .results import Comparison, LineScores, PairedResult
from .thresholds import Metric, Thresholds, load_thresholds

__all__ = [
    "ALL_METRICS",
    "CONFIDENCE",
    "Comparison",
    "ComparisonSettings",
    "LineScores",
    "Metric",
    "PairedResult",
    "RESAMPLES",
    "Thresholds",
    "bootstrap_interval",
    "compare_runs",
    "count_outcomes",
    "format_number",
    "format_p_value",
    "format_signed",
    "load_thresholds",
    "render_page",
    "render_report",
    "sign_test",
]
