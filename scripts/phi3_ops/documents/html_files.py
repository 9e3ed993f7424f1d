"""Read HTML files: the visible text, by headings."""

from __future__ import annotations

from typing import Any

from .sections import Section, SectionBuilder, UnreadableError

# Elements whose text is not content.
_LEFT_OUT = ("script", "style", "noscript", "template", "svg", "math", "nav", "head", "iframe")
_INLINE = frozenset(
    [
        *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "ins"),
        *("kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup"),
        *("time", "tt", "u", "var", "wbr"),
    ]
)
# A row of a table with one of these is layout, not data.
_IN_LAYOUT = ("tr", "ul", "ol", "dl", "pre", "blockquote", *(f"h{level}" for level in range(1, 7)))
_CELLS, _PARAGRAPHS = ("td", "th"), ("p", "div")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read_html(content: bytes) -> list[Section]:
    """Return the sections of an HTML file. The cells of a table's row are separated by ` | `.

    Raises:
        UnreadableError: the file is binary.
    """
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString

    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("it is a binary file")
    soup = BeautifulSoup(content, "html.parser")
    for element in soup.find_all(_LEFT_OUT):
        element.decompose()
    for row in soup.find_all("tr"):
        _join_cells(row)
    builder = SectionBuilder()
    texts: list[str] = []
    present: Any = None
    for node in [*soup.descendants, None]:
        is_break = getattr(node, "name", None) == "br"
        if node is not None and type(node) is not NavigableString and not is_break:
            continue
        block = _block_of(node) if node is not None and not is_break else None
        if block is not present and texts:
            _add(builder, present, texts)
            texts = []
        present = block
        if block is not None:
            texts.append(str(node))
    return builder.sections()


def _join_cells(row: Any) -> None:
    """Replace the cells of a table's row by one text, unless the row is layout."""
    cells = row.find_all(_CELLS, recursive=False)
    is_nested = len(row.find_all(_CELLS)) != len(cells)
    if len(cells) < 2 or is_nested or row.find(_IN_LAYOUT):
        return
    if any(len(cell.find_all(_PARAGRAPHS)) > 1 for cell in cells):
        return
    for element in row.find_all((*_PARAGRAPHS, "br")):
        element.append(" ")  # it ends a line
    texts = [" ".join(cell.get_text().split()) for cell in cells]
    row.string = " | ".join(texts) if any(texts) else ""


def _block_of(node: Any) -> Any:
    """Return the nearest element around a text that is a block."""
    parent = node.parent
    while parent is not None and parent.name in _INLINE:
        parent = parent.parent
    return parent


def _add(builder: SectionBuilder, block: Any, texts: list[str]) -> None:
    text = "".join(texts)
    is_code = block is not None and block.name == "pre"
    text = text.strip("\n") if is_code else " ".join(text.split())
    level = _HEADINGS.get(block.name) if block is not None else None
    if level is not None:
        builder.add_heading(level, text)
    else:
        builder.add_paragraph(text)
