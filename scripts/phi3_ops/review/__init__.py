"""`phi3 review`: people judge the answers of runs on a local page; agreement with judges; calibration.

It may import `runs`, `chat` and every room below them.
"""

from __future__ import annotations

from .records import CHOICE, EDIT, FLAG, RATING, Judgement
from .store import read_judgements

__all__ = [
    "CHOICE",
    "EDIT",
    "FLAG",
    "RATING",
    "Judgement",
    "read_judgements",
]
