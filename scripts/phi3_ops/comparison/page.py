"""Render a template as one HTML file without scripts and external content; model output stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..hashing import sha256_base64
from ..terminal import escape_invisible
from .page_text import page_text

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "compare.css"  # the style of every report


def render_page(template: str, *, css: str = "", folder: Path = TEMPLATES, **values: Any) -> str:
    """Return a report as HTML.

    Args:
        template: name of the template. It fills in the title and the content of frame.html, which
            writes the style sheet `css` and allows it in its Content-Security-Policy by `style_hash`.
        css: rules that are added to the style of the reports.
        folder: folder of the template.
        values: the variables of the template.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": escape_invisible,
        "page_text": page_text,
        "number": format_number,
        "signed": format_signed,
        "p_value": format_p_value,
    }
    style = (TEMPLATES / STYLE).read_text(encoding="utf-8") + css
    style_hash = f"sha256-{sha256_base64(style.encode())}"
    return environment.get_template(template).render(css=style, style_hash=style_hash, **values)


def format_number(value: float | None) -> str:
    """Return a score with four significant digits; a dash for None."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def format_signed(value: float | None) -> str:
    """Return a difference with its sign; a dash for None."""
    return "–" if value is None else f"{value:+.3g}".replace("-", "−") if value else "0"


def format_p_value(p: float) -> str:
    """Return a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
