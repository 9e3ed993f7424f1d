"""Server-sent events out of bytes. Contract: WHATWG HTML, "Server-sent events", parsing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DONE = "[DONE]"  # OpenAI's last event
_LINE = re.compile(rb"\r\n|\n|\r")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as soon as their end has come; a chunk may end anywhere, within a character too."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        # A CR at the very end may be half of a CRLF: wait for the next byte.
        held = b"\r" if rest.endswith(b"\r") else b""
        *complete, rest = _LINE.split(rest[: len(rest) - len(held)])
        rest += held
        yield from complete
    if rest:
        yield rest.rstrip(b"\r")


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each event, several data lines joined by newlines; other fields are ignored."""
    data: list[str] = []
    for line in lines(chunks):
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode("utf-8", "replace"))
    if data:
        yield "\n".join(data)
