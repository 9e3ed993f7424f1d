"""Find the columns of the prompts and the answers in files whose rows have no `messages`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ..errors import OpsError
from .formats import MAX_LISTED, csv_header, is_table, open_table, read_jsonl
from .preferences import PREFERENCE_COLUMNS, is_preference
from .source_rows import Columns, PreferenceColumns, TextColumns

# Usual names of the prompt and the answer; the first pair that a file has is taken. The names of a file
# are compared without upper case and without spaces, hyphens and underscores.
USUAL_NAMES = (
    ("prompt", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "answer"),
    ("query", "answer"),
    ("query", "response"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("request", "response"),
    ("input", "output"),
    ("problem", "solution"),
    ("frage", "antwort"),
    ("q", "a"),
)
# Columns of texts that an instruction is about, as in the data of Alpaca and Dolly.
CONTEXT_NAMES = {"instruction": ("input", "context")}
# Names that are never suggested as the prompt or the answer.
_OTHER_NAMES = (
    "",
    "id",
    "no",
    "nr",
    "number",
    "index",
    "row",
    "date",
    "time",
    "source",
    "category",
)
_PEEKED_ROWS = 100


class UnclearColumnsError(OpsError):
    """It is not clear which columns of a file are the prompt and the answer.

    Attributes:
        options: words of the command line that name two columns of the file.
    """

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        listed = ", ".join(columns[:MAX_LISTED]) + (" …" if len(columns) > MAX_LISTED else "")
        what = (
            f"{name} has the columns {listed}; which are the question and the answer is not clear"
        )
        candidates = [column for column in columns if _plain(column) not in _OTHER_NAMES]
        names = candidates if len(candidates) > 1 else columns
        self.options = ["--prompt-column", names[0], "--answer-column", names[1]]
        super().__init__(what, "Name them with --prompt-column and --answer-column.")


def find_columns(path: Path) -> Columns:
    """Return the columns of the prompts and the answers of a file by their names.

    Args:
        path: a CSV, JSONL or Parquet file.

    Returns:
        The columns; None if rows have `messages`, or if the file has no row that can be read.

    Raises:
        UnclearColumnsError: the names are not among the usual ones.
        OpsError: the file cannot be read, or has only one column.
    """
    if path.suffix.lower() == ".parquet":
        with path.open("rb") as file:
            names = list(open_table(file, str(path), columns=()).schema_arrow.names)
    elif is_table(path):
        names = csv_header(path)
    else:
        names = _names_of_json_rows(path)
    return guess_columns(str(path), names)


def guess_columns(name: str, columns: Sequence[str]) -> Columns:
    """Return the columns of the prompts and the answers; None for `messages` or without columns.

    Args:
        name: name of the file, for errors.
        columns: all columns of the file.

    Raises:
        UnclearColumnsError: the names are not among the usual ones.
        OpsError: the file has only one column.
    """
    if not columns or "messages" in columns:
        return None
    if is_preference(columns):
        return PreferenceColumns(*PREFERENCE_COLUMNS[:2])
    by_plain_name = {_plain(column): column for column in reversed(columns)}
    for prompt, answer in USUAL_NAMES:
        if prompt in by_plain_name and answer in by_plain_name:
            contexts = (by_plain_name.get(other) for other in CONTEXT_NAMES.get(prompt, ()))
            context = next(filter(None, contexts), None)
            return TextColumns(by_plain_name[prompt], by_plain_name[answer], context)
    if len(columns) < 2:
        fix = "Give a file with a column of questions and a column of answers."
        raise OpsError(f"{name} has only the column {columns[0]!r}", fix)
    raise UnclearColumnsError(name, columns)


def _names_of_json_rows(path: Path) -> list[str]:
    """Return the keys of the first object; nothing if one of the first rows has `messages`."""
    rows = [source_row.row for source_row in islice(read_jsonl(path, None), _PEEKED_ROWS)]
    objects = [row for row in rows if isinstance(row, dict)]
    if not objects or any("messages" in row for row in objects):
        return []
    if is_preference(objects[0]):
        return list(objects[0])
    names = [key for key, value in objects[0].items() if isinstance(value, str)]
    return names if len(names) > 1 else []


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in " -_\ufeff")
