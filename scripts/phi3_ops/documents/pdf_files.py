"""Read PDF files page by page."""

from __future__ import annotations

import io
import logging

from .sections import Section, UnreadableError, check_length

MAX_PAGES = 5_000


def read_pdf(content: bytes) -> list[Section]:
    """Return one section per page that has text.

    Raises:
        UnreadableError: the file is encrypted, broken, or has too many pages.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns about each damaged object
    sections, characters = [], 0
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("it is encrypted with a password")
        if len(reader.pages) > MAX_PAGES:
            raise UnreadableError(f"it has more than {MAX_PAGES:,} pages")
        for number, page in enumerate(reader.pages, 1):
            text = page.extract_text()
            characters += len(text)
            check_length(characters)
            sections.append(Section(text, 0, page=number))
    except UnreadableError:
        raise
    except PyPdfError as error:
        raise UnreadableError(f"it is a broken PDF: {error}") from None
    except ImportError as error:  # encryption by a method that needs another package
        raise UnreadableError(f"it is encrypted: {error}") from None
    return sections
