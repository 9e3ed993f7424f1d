"""`phi3 review`: people judge the answers of runs on a local page; agreement with judges; calibration.

This room needs the extra `[eval]`. It may import `comparison`, `runs`, `chat` and every room below them.
"""

from __future__ import annotations

from .app import make_review_app, new_token
from .calibration import calibrate_run, make_calibration, read_calibration, write_calibration
from .metric import add_ratings, is_review_metric, with_review_metrics
from .panel import write_panel
from .records import CHOICE, EDIT, FLAG, RATING, Judgement
from .session import ReviewSession, ReviewSettings, choose_rubric, load_judgements
from .store import read_judgements
from .subjects import ReviewedData, ReviewedRun, load_runs
from .summary import summarise_review
from .summary_text import sections

__all__ = [
    "CHOICE",
    "EDIT",
    "FLAG",
    "RATING",
    "Judgement",
    "ReviewSession",
    "ReviewSettings",
    "ReviewedData",
    "ReviewedRun",
    "add_ratings",
    "calibrate_run",
    "choose_rubric",
    "is_review_metric",
    "load_judgements",
    "load_runs",
    "make_calibration",
    "make_review_app",
    "new_token",
    "read_calibration",
    "read_judgements",
    "sections",
    "summarise_review",
    "with_review_metrics",
    "write_calibration",
    "write_panel",
]
