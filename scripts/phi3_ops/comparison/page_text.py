"""Texts of a report's cells: invisible characters are escaped, and tall texts are clipped."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..terminal import escape_invisible

MAX_CHARACTERS = 400  # a longer text is clipped
MAX_LINES = 8  # likewise
LONGEST = 20_000  # characters of a text that are in the page
_LINE_BREAKS = re.compile(r"(?:[ \t]*\n){4,}[ \t]*")


@dataclass(frozen=True)
class PageText:
    """A text as the page shows it.

    Attributes:
        text: the text. A run of line breaks is replaced by their number.
        preview: the beginning of a text that is clipped until the reader wants all of it; else "".
        size: the size of a clipped text in words; else "".
        is_cut: whether the page lacks the end of the text.
    """

    text: str
    preview: str = ""
    size: str = ""
    is_cut: bool = False


def page_text(value: object) -> PageText:
    """Return a value as the page shows it."""
    full_text = escape_invisible(value)
    text = _LINE_BREAKS.sub(_count_line_breaks, full_text).strip("\n")
    lines = text.splitlines()
    if len(text) <= MAX_CHARACTERS and len(lines) <= MAX_LINES:
        return PageText(text)
    preview = "\n".join(lines[:MAX_LINES])[:MAX_CHARACTERS] + " …"
    is_long = len(full_text) > MAX_CHARACTERS
    size = f"{len(full_text):,} characters" if is_long else f"{len(lines):,} lines"
    return PageText(text[:LONGEST], preview, size, len(text) > LONGEST)


def _count_line_breaks(match: re.Match[str]) -> str:
    return f"\n({match[0].count(chr(10)):,} line breaks)\n"
