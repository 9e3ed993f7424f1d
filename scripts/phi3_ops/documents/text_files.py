"""Read text and Markdown files. Positions are those of characters in the file."""

from __future__ import annotations

import codecs
import re

from .sections import Section, UnreadableError, check_length

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FRONT_MATTER = re.compile(r"---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)


def decode_text(content: bytes) -> str:
    """Return the text of a file, with line feeds as line ends.

    Raises:
        UnreadableError: the file is binary, too long, or not in UTF-8 or UTF-16.
    """
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content:
        raise UnreadableError("it is a binary file")
    try:
        text = content.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"it is not UTF-8 (byte {error.start})") from None
    check_length(len(text))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(content: bytes) -> list[Section]:
    """Return the text of a file as one section."""
    return [Section(decode_text(content), 0)]


def read_markdown(content: bytes) -> list[Section]:
    """Return the sections of a Markdown file: the text between two headings, as it is in the file.

    A front matter is left out. Headings are those of CommonMark, outside code, quotes and lists.
    """
    from markdown_it import MarkdownIt

    text = decode_text(content)
    front_matter = _FRONT_MATTER.match(text)
    offset = front_matter.end() if front_matter else 0
    body = text[offset:]
    starts = [offset]
    for line in body.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    tokens = MarkdownIt("commonmark").parse(body)
    sections: list[Section] = []
    headings: list[tuple[int, str]] = []
    begin = 0

    def add(end: int) -> None:
        part = text[starts[begin] : starts[end]].rstrip("\n")
        sections.append(Section(part, starts[begin], tuple(name for _, name in headings)))

    for token, following in zip(tokens, tokens[1:]):
        if token.type == "heading_open" and token.level == 0 and token.map:
            add(token.map[0])
            level = int(token.tag[1:])
            headings[:] = [entry for entry in headings if entry[0] < level]
            headings.append((level, following.content))
            begin = token.map[1]
    add(len(starts) - 1)
    return sections
