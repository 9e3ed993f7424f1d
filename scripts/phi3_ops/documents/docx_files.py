"""Read DOCX files: paragraphs and tables, by headings."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from .sections import Section, SectionBuilder, UnreadableError

MAX_UNPACKED = 200 << 20  # bytes of all parts together
MAX_PARTS = 10_000
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(content: bytes) -> list[Section]:
    """Return the sections of a DOCX file. The cells of a table's row are separated by ` | `.

    Raises:
        UnreadableError: the file is broken, encrypted, or unpacks to too much.
    """
    from docx import Document

    _check_package(content)
    try:
        document = Document(io.BytesIO(content))
    except (KeyError, ValueError):  # no main part, or that of another Office format
        raise UnreadableError("it is a broken DOCX: it contains no document") from None
    except Exception:  # python-docx also raises errors of zipfile, lxml and its own
        raise UnreadableError("it is a broken DOCX: its parts cannot be read") from None
    builder = SectionBuilder()
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            builder.add_paragraph("\n".join(filter(None, map(_row_text, block.rows))))
            continue
        text = block.text.strip()
        level = _heading_level(block)
        if level is None:
            builder.add_paragraph(text)
        elif text:
            builder.add_heading(level, text)
    return builder.sections()


def _check_package(content: bytes) -> None:
    """Raise UnreadableError if a file is not a package of a document, or unpacks to too much."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as package:
            parts = package.infolist()
    except zipfile.BadZipFile:
        raise UnreadableError("it is not a DOCX, or it is broken or encrypted") from None
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise UnreadableError(f"it unpacks to more than {MAX_UNPACKED >> 20} MiB")


def _heading_level(paragraph: Any) -> int | None:
    """Return the level of a heading; None for other paragraphs."""
    style = paragraph.style.name if paragraph.style is not None else ""
    if style == "Title":
        return 0
    match = _HEADING.fullmatch(style or "")
    return int(match[1]) if match else None


def _row_text(row: Any) -> str:
    # python-docx repeats a merged cell for each column.
    elements = [cell._tc for cell in row.cells]
    is_new = [not index or elements[index - 1] is not tc for index, tc in enumerate(elements)]
    cells = [_cell_text(cell) for cell, new in zip(row.cells, is_new) if new]
    return " | ".join(cells) if any(cells) else ""


def _cell_text(cell: Any) -> str:
    """Return the text of a cell in one line, with the tables in it."""
    texts: list[str] = []
    for block in cell.iter_inner_content():
        texts += map(_row_text, block.rows) if hasattr(block, "rows") else [block.text]
    return " ".join(" ".join(texts).split())
