"""A source of chats, and a row as it was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .checks import Problem


class TextColumns(NamedTuple):
    """Columns whose texts become a chat.

    Attributes:
        prompt: column of the prompts.
        answer: column of the answers.
        context: column of texts that are added to the prompts; None without one.
    """

    prompt: str
    answer: str
    context: str | None = None


class PreferenceColumns(TextColumns):
    """Columns of preferences: the answer is the chosen one, and there is a `rejected` one, too."""


Columns = TextColumns | None  # None if rows have `messages`


class SourceRow(NamedTuple):
    """A row as it was read.

    Attributes:
        line: number of the line in a text file, or of the row in a table, from 1.
        row: the parsed row; None with a problem.
        raw: text of the row; None if the source is not a text file.
        start: byte at which `raw` starts in its file; None if the row cannot be copied from there.
        problem: problem with which reading the row failed.
    """

    line: int
    row: Any
    raw: bytes | None = None
    start: int | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class SourceOrigin:
    """Where the rows came from.

    Attributes:
        name: name of the file or folder, or id of the dataset on the hub.
        revision: commit of the dataset; None for files.
        split: slice of the dataset; None for files.
    """

    name: str
    revision: str | None = None
    split: str | None = None


@dataclass
class Source:
    """A source that can be read once.

    Attributes:
        name: the name that the user gave.
        parts: name and rows of each file; a file is opened when its rows are read.
        origin: what the manifest records.
        files: the files of the source; empty for a dataset on the hub.
        columns: columns of the first file; None if its rows have `messages`.
    """

    name: str
    parts: Iterator[tuple[str, Iterator[SourceRow]]]
    origin: SourceOrigin
    files: list[Path] = field(default_factory=list)
    columns: Columns = None
