"""Render a sweep as one HTML file without scripts and external content."""

from __future__ import annotations

from pathlib import Path

from ..comparison import render_page
from .plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, make_plots
from .results import SweepResult

TEMPLATES = Path(__file__).parent / "templates"


def render_sweep(result: SweepResult) -> str:
    """Return the report as HTML, in the style of `phi3 compare`."""
    return render_page(
        "sweep.html",
        css=(TEMPLATES / "sweep.css").read_text(encoding="utf-8"),
        folder=TEMPLATES,
        result=result,
        parameters=list(dict.fromkeys(name for cell in result.cells for name in cell.parameters)),
        plots=make_plots(result),
        frame={
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
        },
    )
