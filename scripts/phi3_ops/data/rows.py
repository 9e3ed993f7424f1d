"""The rows of a source: where the accepted rows are stored, and why the others were rejected.

Of each accepted row, only its location, its lengths and its digests stay in memory.
"""

from __future__ import annotations

import base64
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from .checks import (
    DUPLICATE,
    TOO_LONG,
    Chat,
    CountTokens,
    Problem,
    chat_digest,
    normalise_text,
    shorten_chat,
)
from .source_rows import SourceRow

MAX_LISTED_REJECTS = 3  # in an error


def dump_row(value: Any) -> bytes:
    """Return a value as one line of JSON; values that JSON does not have become strings."""
    return orjson.dumps(value, default=str)


@dataclass
class AcceptedRows:
    """The rows that passed the checks.

    Attributes:
        count_tokens: function that returns the number of tokens of a chat.
        max_tokens: longest accepted chat; None accepts every length.
        over_long: `drop`, `cut` or `keep`: what happens to a longer chat.
        file_numbers: file that contains a row: 0 for the spool, n for the n-th file of the source.
        starts, sizes: first byte and number of bytes of a row in its file.
        tokens, turns: lengths of a chat.
        lines: line of a row in the source, from 1.
        parts: for each part of the source, its first row and its name.
        prompts, answers: hashes of the first prompts and of the first answers.
        facts: the fact that each row names; None if a row does not name one.
        later_facts: facts that later turns of rows ask for, by their column `later_facts`.
        rows_by_digest: digest of a chat -> its row, to find duplicates.
        cut: number of chats that were shortened.
    """

    count_tokens: CountTokens
    max_tokens: int | None
    over_long: str
    file_numbers: array[int] = field(default_factory=lambda: array("L"))
    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("L"))
    tokens: array[int] = field(default_factory=lambda: array("L"))
    turns: array[int] = field(default_factory=lambda: array("L"))
    lines: array[int] = field(default_factory=lambda: array("Q"))
    parts: list[tuple[int, str]] = field(default_factory=list)
    prompts: array[int] = field(default_factory=lambda: array("q"))
    answers: array[int] = field(default_factory=lambda: array("q"))
    facts: list[str] | None = field(default_factory=list)
    later_facts: set[str] = field(default_factory=set)
    rows_by_digest: dict[bytes, int] = field(default_factory=dict)
    cut: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    def start_part(self, name: str) -> None:
        """Record that the following rows belong to another part (a file) of the source."""
        self.parts.append((len(self), name))

    def add(self, chat: Chat, source_row: SourceRow) -> Chat | Problem:
        """Record a chat. Return it, shortened if it was too long, or the reason for a rejection."""
        tokens, most = self.count_tokens(chat), self.max_tokens
        if most is not None and tokens > most and self.over_long != "keep":
            cut = self.over_long == "cut"
            shorter = shorten_chat(chat, most, self.count_tokens) if cut else None
            if shorter is None:
                return Problem(TOO_LONG, f"{tokens} tokens, more than {most}")
            chat, tokens = shorter, self.count_tokens(shorter)
        first = self.rows_by_digest.setdefault(chat_digest(chat), len(self))
        if first != len(self):
            return Problem(DUPLICATE, f"same text as {self._location(first)}")
        self.cut += chat.messages is not source_row.row["messages"]
        self.tokens.append(tokens)
        self.turns.append(chat.turns)
        self.lines.append(source_row.line)
        # A collision of two hashes is harmless: it puts two prompts on the same side of the split.
        self.prompts.append(hash(normalise_text(chat.prompt.strip())))
        self.answers.append(hash(normalise_text(chat.answer.strip())))
        if self.facts is not None:
            fact = source_row.row.get("fact")
            if isinstance(fact, str):
                self.facts.append(fact)
                later = source_row.row.get("later_facts")
                self.later_facts.update(map(str, later) if isinstance(later, list) else ())
            else:
                self.facts = None
        return chat

    def set_location(self, file_number: int, start: int, size: int) -> None:
        """Record where the text of the last added chat is stored."""
        self.file_numbers.append(file_number)
        self.starts.append(start)
        self.sizes.append(size)

    def _location(self, row: int) -> str:
        name = next(name for first, name in reversed(self.parts) if first <= row)
        return f"{Path(name).name}, line {self.lines[row]}"


class RejectedRows:
    """The rows that did not pass the checks; they are written with file, line and reason.

    Attributes:
        reasons: reason -> number of rows.
        listed: the first rejections in words, for an error.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.reasons: Counter[str] = Counter()
        self.listed: list[str] = []
        self._file = file

    def __len__(self) -> int:
        return self.reasons.total()

    def add(self, name: str, source_row: SourceRow, problem: Problem) -> None:
        """Count and write a rejected row.

        Args:
            name: part of the source that contains the row.
            source_row: the row.
            problem: reason for the rejection.
        """
        self.reasons[problem.reason] += 1
        if len(self.listed) < MAX_LISTED_REJECTS:
            self.listed.append(f"{name}, line {source_row.line}: {problem.detail}")
        entry = {
            "file": Path(name).name,
            "line": source_row.line,
            "reason": problem.reason,
            "detail": problem.detail,
            **_content(source_row),
        }
        self._file.write(dump_row(entry) + b"\n")

    def in_words(self) -> str:
        """Return the first rejections and the number of further ones; an empty text without any."""
        more = len(self) - len(self.listed)
        return "; ".join(self.listed) + (f"; and {more} more" if more else "")


def _content(source_row: SourceRow) -> dict[str, Any]:
    """Return a rejected row as JSON; if it cannot be parsed, as text; if it is not UTF-8, as base64."""
    if source_row.row is not None or source_row.raw is None:
        return {"row": source_row.row}
    try:
        return {"text": source_row.raw.decode().strip()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(source_row.raw).decode()}
