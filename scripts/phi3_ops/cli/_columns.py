"""The options that name columns of a data file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import OpsError

if TYPE_CHECKING:
    from ..data import TextColumns


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add `--prompt-column` and `--answer-column`."""
    usual = "a usual name such as"
    parser.add_argument(
        "--prompt-column",
        metavar="NAME",
        help=f"column of the questions (default: {usual} question, prompt or instruction)",
    )
    parser.add_argument(
        "--answer-column",
        metavar="NAME",
        help=f"column of the answers (default: {usual} answer, completion or output)",
    )


def chosen_columns(prompt: str | None, answer: str | None) -> TextColumns | None:
    """Return the columns that the options name; None without them.

    Args:
        prompt: the option `--prompt-column`, or None.
        answer: the option `--answer-column`, or None.
    """
    from ..data import CSV_COLUMNS, TextColumns

    if not (prompt or answer):
        return None
    return TextColumns(prompt or CSV_COLUMNS[0], answer or CSV_COLUMNS[1])


@contextmanager
def naming_columns(command: Sequence[object]) -> Iterator[None]:
    """Complete the error for unclear columns by the command with the two options.

    Args:
        command: words of the command after `phi3`.

    Raises:
        OpsError: the columns of the data are not clear.
    """
    from ..data import UnclearColumnsError

    try:
        yield
    except UnclearColumnsError as error:
        line = shlex.join(["phi3", *map(str, command), *error.options])
        raise OpsError(error.what, f"Run `{line}`, or name other columns.") from error


def add_column_mapping(parser: argparse.ArgumentParser) -> None:
    """Add `--column-mapping`."""
    parser.add_argument(
        "--column-mapping",
        nargs="+",
        default=[],
        metavar="INPUT=VALUE",
        help="source of an input: a column, for example input_data='${data.question}', or a text, which "
        "may be empty (default: the column with the name of the input)",
    )


def parse_column_mapping(words: Sequence[str]) -> dict[str, str]:
    """Return the sources that the words of `--column-mapping` set: input -> column or constant.

    Raises:
        OpsError: a word is not of the form INPUT=VALUE.
    """
    mapping = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            what = f"--column-mapping {word!r} is not of the form INPUT=VALUE"
            raise OpsError(what, "Use for example question='${data.question}'.")
        mapping[name] = value
    return mapping
