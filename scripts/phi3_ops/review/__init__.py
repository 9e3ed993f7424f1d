"""`phi3 review`: people judge the answers of runs on a local page; agreement with judges; calibration.

This room needs the extra `[eval]`, except for reading judgements. It may import `comparison`, `runs`,
`chat` and every room below them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .records import EDIT, FLAG, RATING, Judgement
from .store import read_judgements

if TYPE_CHECKING:
    from .app import make_review_app, new_token
    from .calibration import calibrate_run, make_calibration, read_calibration, write_calibration
    from .metric import add_ratings, is_review_metric, with_review_metrics
    from .panel import write_panel
    from .session import ReviewSession, ReviewSettings, choose_rubric, load_judgements
    from .subjects import ReviewedData, ReviewedRun, load_runs
    from .summary import summarise_review
    from .summary_text import sections

__all__ = [
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
# The modules that need numpy or a web server. `phi3 data` reads judgements without them.
_MODULES = {
    "app": ("make_review_app", "new_token"),
    "calibration": ("calibrate_run", "make_calibration", "read_calibration", "write_calibration"),
    "metric": ("add_ratings", "is_review_metric", "with_review_metrics"),
    "panel": ("write_panel",),
    "session": ("ReviewSession", "ReviewSettings", "choose_rubric", "load_judgements"),
    "subjects": ("ReviewedData", "ReviewedRun", "load_runs"),
    "summary": ("summarise_review",),
    "summary_text": ("sections",),
}


def __getattr__(name: str) -> Any:
    """Import a module of this room when something of it is used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
