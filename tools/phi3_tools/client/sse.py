"""Parsing of server-sent events. Contract: WHATWG HTML, "Server-sent events"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DONE = "[DONE]"  # OpenAI's last event
_LINE_END = re.compile(rb"\r\n|\n|\r")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line as soon as its end has arrived.

    A chunk may end anywhere, also inside a character. A last line without an end is dropped, because it
    may be incomplete.
    """
    incomplete: list[bytes] = []  # parts of a line whose end has not arrived
    after_cr = False
    for chunk in filter(None, chunks):
        text = chunk.removeprefix(b"\n") if after_cr else chunk  # CRLF across two chunks is one end
        after_cr = chunk.endswith(b"\r")
        *complete, rest = _LINE_END.split(text)
        for line in complete:
            yield b"".join([*incomplete, line])
            incomplete = []
        incomplete.append(rest)


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each event, its data lines joined by newlines; other fields are ignored."""
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
