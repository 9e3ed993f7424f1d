"""The reader of each file format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from phi3_tools.errors import well_formed

from .docx_files import read_docx
from .html_files import read_html
from .pdf_files import read_pdf
from .sections import Section, UnreadableError, require_text
from .text_files import read_markdown, read_text

Reader = Callable[[bytes], list[Section]]
READERS: dict[str, Reader] = {
    **dict.fromkeys((".md", ".markdown"), read_markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".txt", ".text", ".rst"), read_text),
    ".pdf": read_pdf,
    ".docx": read_docx,
}
MAX_BYTES = 50 << 20  # of a file


def read_document(path: Path) -> list[Section]:
    """Return the sections of a document.

    Args:
        path: a file with one of the suffixes in `READERS`.

    Raises:
        UnreadableError: the document cannot be read; the error is the reason.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"it cannot be opened: {error.strerror}") from None
    if not content:
        raise UnreadableError("it is empty")
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"it is larger than {MAX_BYTES >> 20} MiB")
    suffix = path.suffix.lower()
    sections = [_well_formed(section) for section in READERS[suffix](content)]
    return require_text(sections, "; it may be a scan" if suffix == ".pdf" else "")


def _well_formed(section: Section) -> Section:
    """Return a section whose texts can be written as UTF-8: a PDF may contain half a surrogate pair."""
    headings = tuple(map(well_formed, section.headings))
    return replace(section, text=well_formed(section.text), headings=headings)
