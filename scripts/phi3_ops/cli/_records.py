"""Records that a command prints as a table, or with `--json` as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from ..terminal import console, one_line, print_text

Record = Mapping[str, Any]


def add_json(parser: Any) -> None:
    """Add `--json` to a parser or a group of arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


@contextmanager
def messages_to_stderr(as_json: bool) -> Iterator[None]:
    """Send what the block prints to standard error if the command prints JSON.

    Standard output then contains nothing but the JSON document.
    """
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield


def print_json(items: Sequence[Record], **more: Any) -> None:
    """Print records as a JSON object: `items` and further fields."""
    print_text(json.dumps({"items": list(items), **more}, indent=2, allow_nan=False))


def print_table(
    items: Sequence[Record],
    columns: Sequence[str],
    *,
    formats: Mapping[str, Callable[[Any], str]] | None = None,
    right: Collection[str] = (),
) -> None:
    """Print records as a table, one record per row.

    Args:
        items: the records.
        columns: the fields that become columns; `_` in their names becomes a space.
        formats: field -> function that returns its value as text; other values are printed by `str`.
        right: fields whose values are aligned on the right.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column.replace("_", " "),
            overflow="fold",
            justify="right" if column in right else "left",
        )
    for item in items:
        cells = [(formats or {}).get(column, str)(item[column]) for column in columns]
        table.add_row(*map(one_line, cells))
    console().print(table)
