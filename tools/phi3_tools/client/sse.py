"""Server-sent events out of bytes. Contract: WHATWG HTML, "Server-sent events", parsing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DONE = "[DONE]"  # OpenAI's last event
_LINE = re.compile(rb"\r\n|\n|\r")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as soon as their end has come; a chunk may end anywhere, within a character too. A last
    line without an end is dropped: nobody can tell whether it is whole."""
    begun: list[bytes] = []  # pieces of a line whose end has not come
    after_cr = False
    for chunk in filter(None, chunks):
        part = chunk.removeprefix(b"\n") if after_cr else chunk  # a CRLF cut in two is one end
        after_cr = chunk.endswith(b"\r")
        *complete, rest = _LINE.split(part)
        for line in complete:
            yield b"".join([*begun, line])
            begun = []
        begun.append(rest)


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
