"""What a reader returns for a document: its sections, or the reason for which it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f]")
MAX_CHARACTERS = 20_000_000  # of the text of one document


class UnreadableError(Exception):
    """A document cannot be read; its text is the reason."""


@dataclass(frozen=True)
class Section:
    """A part of a document's text under one heading, or on one page.

    Attributes:
        text: the text.
        start: first character of it: in a text or Markdown file, in the file; in a PDF, on the page;
            otherwise in the text that was extracted from the document.
        headings: the headings above it, the outermost first.
        page: number of the page, from 1; None for documents without pages.
    """

    text: str
    start: int
    headings: tuple[str, ...] = ()
    page: int | None = None


class SectionBuilder:
    """Collects the paragraphs of a document whose text has to be extracted."""

    def __init__(self) -> None:
        self._sections: list[Section] = []
        self._headings: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []
        self._start = self._length = 0

    def add_heading(self, level: int, text: str) -> None:
        """Begin a section under a heading; level 1 is the outermost."""
        self._flush()
        self._headings = [(above, name) for above, name in self._headings if above < level]
        if text:
            self._headings.append((level, text))
            self._length += len(text) + 2
            self._start = self._length

    def add_paragraph(self, text: str) -> None:
        """Add a paragraph to the section.

        Raises:
            UnreadableError: the text of the document is too long.
        """
        if text:
            self._paragraphs.append(text)
            self._length += len(text) + 2
            check_length(self._length)

    def sections(self) -> list[Section]:
        """Return the sections that have text."""
        self._flush()
        return self._sections

    def _flush(self) -> None:
        if self._paragraphs:
            headings = tuple(name for _, name in self._headings)
            text = "\n\n".join(self._paragraphs)
            self._sections.append(Section(text, self._start, headings))
        self._paragraphs = []
        self._start = self._length


def without_controls(sections: Iterable[Section]) -> tuple[list[Section], int]:
    """Return sections with spaces instead of control characters, and the number of these characters.

    Tabs and line ends stay, and so do all positions.
    """
    replaced, count = [], 0
    for section in sections:
        text, in_text = _CONTROL.subn(" ", section.text)
        headings = tuple(_CONTROL.sub(" ", heading) for heading in section.headings)
        replaced.append(replace(section, text=text, headings=headings))
        count += in_text
    return replaced, count


def check_length(characters: int) -> None:
    """Raise UnreadableError if a document has too much text."""
    if characters > MAX_CHARACTERS:
        raise UnreadableError(f"it has more than {MAX_CHARACTERS:,} characters")


def require_text(sections: Iterable[Section], hint: str = "") -> list[Section]:
    """Return the sections with text.

    Args:
        sections: the sections.
        hint: a possible cause of a document without text.

    Raises:
        UnreadableError: no section has text.
    """
    with_text = [section for section in sections if section.text.strip()]
    if not with_text:
        raise UnreadableError(f"it has no text{hint}")
    return with_text
