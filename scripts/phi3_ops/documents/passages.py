"""Split sections into passages: whole paragraphs where possible, about as long as a page's half."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..data import comparable_text
from .sections import Section

MAX_CHARACTERS = 1_600  # of a passage: about 400 tokens
MIN_CHARACTERS = 300  # a shorter passage is joined with the one before it in the same section
MIN_WORDS = 8
_PARAGRAPH = re.compile(r"\S(?:.|\n(?!\s*\n))*")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|(?<=[。！？])|\n")


@dataclass(frozen=True)
class Passage:
    """A part of a document that questions are asked about.

    Attributes:
        file: path of the document in its folder.
        text: the text.
        start, end: its characters, counted as in `Section.start`.
        headings: the headings above it.
        page: number of the page, or None.
    """

    file: str
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None

    @property
    def location(self) -> str:
        """The place in words: file, page and headings."""
        page = f", page {self.page}" if self.page else ""
        headings = f", {' › '.join(self.headings)}" if self.headings else ""
        return f"{self.file}{page}{headings}"


@dataclass(frozen=True)
class SplitDocuments:
    """The passages of all documents, and the numbers of those that are not used.

    Attributes:
        passages: the passages.
        short: number of passages with fewer than `MIN_WORDS` words.
        repeated: number of passages that have the same words as an earlier one.
    """

    passages: list[Passage]
    short: int
    repeated: int


def split_documents(
    documents: Sequence[tuple[str, Sequence[Section]]], longest: int = MAX_CHARACTERS
) -> SplitDocuments:
    """Return the passages of documents.

    Args:
        documents: name and sections of each document.
        longest: maximum number of characters of a passage.
    """
    passages: list[Passage] = []
    seen: set[str] = set()
    short = repeated = 0
    for name, sections in documents:
        for section in sections:
            for passage in _passages(name, section, longest):
                words = comparable_text(passage.text)
                if words.count(" ") + 1 < MIN_WORDS:
                    short += 1
                elif words in seen:
                    repeated += 1
                else:
                    seen.add(words)
                    passages.append(passage)
    return SplitDocuments(passages, short, repeated)


def _passages(name: str, section: Section, longest: int) -> Iterator[Passage]:
    for begin, end in _spans(section.text, longest):
        yield Passage(
            name,
            section.text[begin:end],
            section.start + begin,
            section.start + end,
            section.headings,
            section.page,
        )


def _spans(text: str, longest: int) -> list[tuple[int, int]]:
    """Return begin and end of the passages of a text."""
    filled: list[tuple[int, int]] = []
    for begin, end in _pieces(text, longest):
        if filled and end - filled[-1][0] <= longest:
            filled[-1] = (filled[-1][0], end)
        else:
            filled.append((begin, end))
    spans: list[tuple[int, int]] = []
    for begin, end in filled:
        is_short = end - begin < MIN_CHARACTERS
        if spans and is_short and end - spans[-1][0] <= longest + MIN_CHARACTERS:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def _pieces(text: str, longest: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each paragraph; a long one is divided at the ends of sentences."""
    for match in _PARAGRAPH.finditer(text):
        begin, end = match.start(), match.start() + len(match[0].rstrip())
        while end - begin > longest:
            cut = _cut(text, begin, begin + longest)
            yield begin, begin + len(text[begin:cut].rstrip())
            begin = cut + len(text[cut:end]) - len(text[cut:end].lstrip())
        if begin < end:
            yield begin, end


def _cut(text: str, begin: int, end: int) -> int:
    """Return where a paragraph is divided: after a sentence, else after a word, else anywhere."""
    half = begin + (end - begin) // 2
    cuts = [match.end() for match in _SENTENCE_END.finditer(text, half, end)]
    if cuts:
        return cuts[-1]
    space = max(text.rfind(" ", half, end), text.rfind("\n", half, end))
    return space + 1 if space > 0 else end
