"""The site as text for language models: an index, and all pages in one file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

Texts = Mapping[str, tuple[str, str]]
_SKIPPED = ("#", "|", "```", "<", "!", ":::")  # beginnings of lines that are not prose


def index_text(config: MkDocsConfig, texts: Texts) -> str:
    """Return the index: one line per page, with its address and its first sentence.

    Args:
        config: MkDocs' configuration, whose `nav` orders the pages.
        texts: page -> its title and its Markdown.
    """
    lines = [f"# {config.site_name}", "", f"> {config.site_description}"]
    for section in config.nav or []:
        ((name, content),) = section.items()
        lines += ["", f"## {name}", ""]
        for page in _pages(content):
            title, text = texts[page]
            lines.append(f"- [{title}]({page.removesuffix('.md')}.html): {_first_sentence(text)}")
    return "\n".join(lines) + "\n"


def full_text(config: MkDocsConfig, texts: Texts) -> str:
    """Return the Markdown of all pages, in the order of the index."""
    pages = _pages(config.nav or [])
    return "\n\n".join(f"<!-- {page} -->\n{texts[page][1].strip()}" for page in pages) + "\n"


def _pages(content: Any) -> Iterator[str]:
    """Yield the pages of a part of `nav`: a page, a list of parts, or a mapping of names to parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _pages(part)
    else:
        for part in content.values():
            yield from _pages(part)


def _first_sentence(text: str) -> str:
    """Return the first sentence of a page's first paragraph, as one line."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    paragraphs = [part.strip() for part in prose.split("\n\n")]
    first = next((p for p in paragraphs if p and not p.startswith(_SKIPPED)), "")
    line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    sentence = re.split(r"(?<=[.:]) ", line, maxsplit=1)[0]
    return re.sub(r":$", ".", sentence)
