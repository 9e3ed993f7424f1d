"""Sweeps: prompts, connections and parameters over one data file, and which of them is best.

This room needs the extra `[eval]`. It may import `comparison`, `runs` and every room below them.
"""

from __future__ import annotations

from .analysis import analyse
from .cells import Cell
from .config import load_sweep
from .plan import CellEstimate, SweepPlan, estimate, make_plan
from .report import render_sweep
from .results import SweepResult
from .runner import SweepRunner

__all__ = [
    "Cell",
    "CellEstimate",
    "SweepPlan",
    "SweepResult",
    "SweepRunner",
    "analyse",
    "estimate",
    "load_sweep",
    "make_plan",
    "render_sweep",
]
