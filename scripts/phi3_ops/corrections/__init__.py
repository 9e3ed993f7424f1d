"""Training rows and preferences from what people corrected: feedback, reviews, and lost lines of runs.

It may import `review`, `comparison` and every room below them.
"""

from __future__ import annotations

from .from_runs import RunSource
from .make import CorrectionData, CorrectionSources, make_correction_data
from .selection import Selection

__all__ = [
    "CorrectionData",
    "CorrectionSources",
    "RunSource",
    "Selection",
    "make_correction_data",
]
