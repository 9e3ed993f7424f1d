"""JSONL, CSV and Parquet, read row by row. What cannot be read is yielded too, with the reason."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from ..errors import OpsError
from .checks import NO_MESSAGES, NOT_CSV, NOT_JSON, NOT_UTF8, Problem

CSV_COLUMNS = ("prompt", "answer")
BATCH = 1000  # rows of a Parquet file that are in memory at once
LONGEST_CELL = 1 << 24  # characters of a CSV file's cell
_UTF8_MARK = b"\xef\xbb\xbf"

Columns = tuple[str, str] | None  # of prompt and answer; None: rows have `messages`


class RowReader(NamedTuple):
    """A row as it was read."""

    line: int  # of a text file, or the row of a table; from 1
    row: Any
    raw: bytes | None = None  # the row's own text, where the source is text
    start: int | None = None  # where `raw` starts in its file, where it is a row of JSONL
    problem: Problem | None = None  # why there is no row


# -- JSONL -------------------------------------------------------------------------------------------


def read_jsonl(path: Path, columns: Columns) -> Iterator[RowReader]:
    """The lines of a JSONL file that are not empty."""
    rows = _json_lines(path)
    return rows if columns is None else as_chats(rows, columns)


def _json_lines(path: Path) -> Iterator[RowReader]:
    start = _mark_length(path)
    with path.open("rb", buffering=1 << 20) as file:
        file.seek(start)
        for number, line in enumerate(file, 1):
            try:
                yield RowReader(number, orjson.loads(line), line, start)
            except orjson.JSONDecodeError as error:
                if not line.isspace():
                    detail = f"not JSON ({error.msg}, column {error.colno})"
                    problem = _undecodable(line) or Problem(NOT_JSON, detail)
                    yield RowReader(number, None, line, problem=problem)
            start += len(line)


def _mark_length(path: Path) -> int:
    """Bytes of the byte-order mark that a UTF-8 file starts with.

    Raises:
        OpsError: the file is in UTF-16 or UTF-32.
    """
    with path.open("rb") as file:
        head = file.read(4)
    # A zero byte is in no JSON and no CSV, but in every ASCII character of UTF-16 and UTF-32.
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        raise OpsError(f"{path} is UTF-16 or binary, not UTF-8", "Save it as UTF-8.")
    return len(_UTF8_MARK) if head.startswith(_UTF8_MARK) else 0


def _undecodable(raw: bytes) -> Problem | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return Problem(NOT_UTF8, f"not UTF-8 (byte {error.start + 1})")
    return None


# -- CSV ---------------------------------------------------------------------------------------------


def read_csv(path: Path, columns: Columns) -> Iterator[RowReader]:
    """The records of a CSV file with a header, as chats; a record's line is its first.

    Raises:
        OpsError: a column is missing.
    """
    columns = columns or CSV_COLUMNS
    return as_chats(_records(path, columns), columns)


def _records(path: Path, columns: Sequence[str]) -> Iterator[RowReader]:
    _mark_length(path)
    csv.field_size_limit(LONGEST_CELL)
    header: list[str] | None = None
    for line, cells, raw, error in _csv_lines(path):
        found = _undecodable(raw)
        if error:
            found = found or Problem(NOT_CSV, f"not CSV ({error})")
        elif header is None:
            header = cells
            need_columns(str(path), header, columns)
            continue
        elif len(cells) != len(header):
            detail = f"not CSV ({len(cells)} cells under a header of {len(header)})"
            found = found or Problem(NOT_CSV, detail)
        row = None if found else dict(zip(header or (), cells))
        yield RowReader(line, row, raw, problem=found)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str], bytes, str]]:
    """Each record that is not empty: its first line, its cells, its text, what is wrong with it."""
    taken: list[str] = []

    def tee(lines: IO[str]) -> Iterator[str]:
        for text in lines:
            taken.append(text)
            yield text

    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = csv.reader(tee(file), strict=True)
        while True:
            taken.clear()
            line, cells, problem = records.line_num + 1, [], ""
            try:
                cells = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                problem = str(error)
            if cells or problem:
                yield line, cells, "".join(taken).encode(errors="surrogateescape"), problem


# -- Parquet -----------------------------------------------------------------------------------------


def read_parquet(path: Path, columns: Columns) -> Iterator[RowReader]:
    """The rows of a Parquet file.

    Raises:
        OpsError: the file is no Parquet file, or a column is missing.
    """
    with path.open("rb") as file:
        yield from table_rows(open_table(file, str(path), columns), str(path), columns)


def open_table(file: Any, name: str, columns: Columns) -> Any:
    """A Parquet file whose footer has been read.

    Args:
        file: opened for reading in binary mode.
        name: for messages.
        columns: of prompt and answer.

    Raises:
        OpsError: the file is no Parquet file, or a column is missing.
    """
    from pyarrow import parquet  # type: ignore[import-untyped]

    with _readable(name):
        # One read a row group, in this thread: pyarrow's scanner would fetch the next ones meanwhile.
        table = parquet.ParquetFile(file, pre_buffer=True)
    need_columns(name, table.schema_arrow.names, columns or ("messages",))
    return table


def table_rows(
    table: Any, name: str, columns: Columns, start: int = 0, stop: int | None = None
) -> Iterator[RowReader]:
    """Rows of a Parquet file, reading the row groups that hold them and no more.

    Args:
        table: from `open_table`.
        name, columns: as there.
        start, stop: the first row, and the one behind the last; from 0.

    Raises:
        OpsError: a row group cannot be read.
    """
    with _readable(name):
        rows = _group_rows(table, start, stop)
        yield from rows if columns is None else as_chats(rows, columns)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        what = str(error).partition("\n")[0]
        raise OpsError(f"cannot read {name} as Parquet: {what}", "Write the file anew.") from error


def _group_rows(table: Any, start: int, stop: int | None) -> Iterator[RowReader]:
    stop = table.metadata.num_rows if stop is None else min(stop, table.metadata.num_rows)
    first = 0
    for group in range(table.metadata.num_row_groups):
        end = first + table.metadata.row_group(group).num_rows
        if first < stop and end > start:
            number = first
            for batch in table.iter_batches(BATCH, row_groups=[group], use_threads=False):
                lines = batch.slice(max(start - number, 0), stop - max(start, number))
                for line, row in enumerate(lines.to_pylist(), max(start, number) + 1):
                    yield RowReader(line, row)
                number += batch.num_rows
        first = end


# -- columns -----------------------------------------------------------------------------------------


def need_columns(name: str, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Check a table's header.

    Raises:
        OpsError: naming the column that is missing, and those that there are.
    """
    for column in wanted:
        if column not in there:
            fix = "Name columns that it has with --prompt-column and --answer-column."
            raise OpsError(f"{name} has no column {column!r}, only {', '.join(there)}", fix)


def as_chats(rows: Iterator[RowReader], columns: tuple[str, str]) -> Iterator[RowReader]:
    """Rows with a prompt and an answer, as rows with `messages`; further columns stay."""
    for read in rows:
        if read.problem:
            yield read
        elif isinstance(read.row, dict) and read.row.keys() >= set(columns):
            prompt, answer = (read.row.pop(column) for column in columns)
            messages = [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": answer},
            ]
            yield RowReader(read.line, {"prompt": prompt, "messages": messages, **read.row})
        else:
            detail = f"no {columns[0]!r} and {columns[1]!r}"
            yield read._replace(problem=Problem(NO_MESSAGES, detail))


FORMATS: dict[str, Callable[[Path, Columns], Iterator[RowReader]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".parquet": read_parquet,
    ".csv": read_csv,
}
