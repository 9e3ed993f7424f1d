"""Read JSONL, JSON, CSV and Parquet files row by row.

A row that cannot be read is yielded too, with the problem.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from ..errors import OpsError
from . import line_limits
from .checks import NO_MESSAGES, NOT_CSV, NOT_JSON, NOT_UTF8, Problem
from .json_array import array_elements, is_array
from .line_limits import bounded_lines, too_long
from .parquet_limits import UnpackedSize, text_columns
from .preferences import as_chat
from .source_rows import Columns, PreferenceColumns, SourceRow, TextColumns

CSV_COLUMNS = ("prompt", "answer")
CSV_DELIMITERS = ",;\t"
BATCH_ROWS = 1000  # rows of a Parquet file that are in memory at once
MAX_CELL = 1 << 24  # characters of a cell of a CSV file
MAX_LISTED = 20  # columns in an error
_UTF8_MARK = b"\xef\xbb\xbf"


# -- JSONL -------------------------------------------------------------------------------------------


def read_jsonl(path: Path, columns: Columns) -> Iterator[SourceRow]:
    """Yield the rows of a JSONL file, or of a `.json` file with one array; empty lines are skipped."""
    rows = _file_rows(path)
    return rows if columns is None else as_chats(rows, columns)


def _file_rows(path: Path) -> Iterator[SourceRow]:
    start = _mark_length(path)
    if is_array(path):
        for line, element, problem in array_elements(path):
            yield SourceRow(line, element, problem=Problem(NOT_JSON, problem) if problem else None)
        return
    with path.open("rb", buffering=1 << 20) as file:
        file.seek(start)
        yield from json_rows(bounded_lines(file, str(path)), start)


def json_rows(lines: Iterable[bytes], start: int = 0) -> Iterator[SourceRow]:
    """Yield the rows of JSONL; empty lines are skipped.

    Args:
        lines: the lines of the file.
        start: byte at which the first line starts in the file.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield SourceRow(number, orjson.loads(line), line, start)
        except orjson.JSONDecodeError as error:
            if not line.isspace():
                detail = f"not JSON ({error.msg}, column {error.colno})"
                problem = _undecodable(line) or Problem(NOT_JSON, detail)
                yield SourceRow(number, None, line, problem=problem)
        start += len(line)


def _mark_length(path: Path) -> int:
    """Return the length of the UTF-8 byte-order mark of a file, in bytes; 0 without one.

    Raises:
        OpsError: the file is in UTF-16 or UTF-32.
    """
    with path.open("rb") as file:
        head = file.read(4)
    # JSON and CSV contain no zero byte; every ASCII character of UTF-16 and UTF-32 contains one.
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


def read_csv(path: Path, columns: Columns) -> Iterator[SourceRow]:
    """Yield the records of a CSV file with a header, as chats; the line of a record is its first line.

    Raises:
        OpsError: a column is missing.
    """
    columns = columns or TextColumns(*CSV_COLUMNS)
    return as_chats(_records(path, columns[:2]), columns)


def is_table(path: Path) -> bool:
    """Return whether a file is a CSV file by its name."""
    return FORMATS.get(path.suffix.lower()) is read_csv


def csv_header(path: Path) -> list[str]:
    """Return the column names of a CSV file; an empty list without a header that can be read."""
    _mark_length(path)
    csv.field_size_limit(MAX_CELL)
    _, cells, _, problem = next(_csv_lines(path), (0, [], b"", ""))
    return [] if problem else cells


def _delimiter(path: Path) -> str:
    """Return the delimiter that occurs most often in the first line of a CSV file."""
    with path.open("rb") as file:
        header = next(bounded_lines(file, str(path)), b"").decode("utf-8", "replace")
    return max(CSV_DELIMITERS, key=header.count)


def _records(path: Path, columns: Sequence[str]) -> Iterator[SourceRow]:
    _mark_length(path)
    csv.field_size_limit(MAX_CELL)
    header: list[str] | None = None
    for line, cells, raw, error in _csv_lines(path):
        problem = _undecodable(raw)
        if error:
            problem = problem or Problem(NOT_CSV, f"not CSV ({error})")
        elif header is None:
            header = cells
            require_columns(str(path), header, columns)
            continue
        elif len(cells) != len(header):
            detail = f"not CSV ({len(cells)} cells under a header of {len(header)})"
            problem = problem or Problem(NOT_CSV, detail)
        row = None if problem else dict(zip(header or (), cells))
        yield SourceRow(line, row, raw, problem=problem)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str], bytes, str]]:
    """Yield first line, cells, text and problem of each record; empty records are skipped."""
    lines_read: list[str] = []
    line = size = 0  # first line, and number of characters, of the record

    def record_lines(lines: Iterable[str]) -> Iterator[str]:
        nonlocal size
        for text in lines:
            lines_read.append(text)
            size += len(text)
            if size > line_limits.MAX_LINE:
                raise too_long(f"{path}: the record that begins in line {line}")
            yield text

    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = record_lines(bounded_lines(file, str(path)))
        records = csv.reader(lines, strict=True, delimiter=_delimiter(path))
        while True:
            lines_read.clear()
            line, size, cells, problem = records.line_num + 1, 0, [], ""
            try:
                cells = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                problem = str(error)
            if cells or problem:
                yield line, cells, "".join(lines_read).encode(errors="surrogateescape"), problem


# -- Parquet -----------------------------------------------------------------------------------------


def read_parquet(path: Path, columns: Columns) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file.

    Raises:
        OpsError: the file is not a Parquet file, or a column is missing.
    """
    with path.open("rb") as file:
        yield from table_rows(open_table(file, str(path), columns), str(path), columns)


def open_table(file: Any, name: str, columns: Columns | tuple[()]) -> Any:
    """Read the footer of a Parquet file and check its columns. Return a `pyarrow.parquet.ParquetFile`.

    Args:
        file: the file, opened for reading in binary mode.
        name: name of the file, for errors.
        columns: columns of prompt and answer; () checks none.

    Raises:
        OpsError: the file is not a Parquet file, or a column is missing.
    """
    from pyarrow import parquet  # type: ignore[import-untyped]

    with _readable(name):
        # One read per row group, in this thread: pyarrow's scanner would fetch further row groups, too.
        table = parquet.ParquetFile(file, pre_buffer=True)
        texts = text_columns(table.schema)
        table = parquet.ParquetFile(
            file, metadata=table.metadata, read_dictionary=texts, pre_buffer=True
        )
    required = ("messages",) if columns is None else columns[:2]
    require_columns(name, table.schema_arrow.names, required)
    return table


def table_rows(
    table: Any, name: str, columns: Columns, start: int = 0, stop: int | None = None
) -> Iterator[SourceRow]:
    """Yield rows of a Parquet file; only the row groups that contain them are read.

    Args:
        table: result of `open_table`.
        name, columns: the arguments of `open_table`.
        start, stop: number of the first row, and of the row after the last one, from 0.

    Raises:
        OpsError: a row group cannot be read, or unpacks to much more than chats do.
    """
    with _readable(name):
        rows = _group_rows(table, UnpackedSize(name, table.metadata), start, stop)
        yield from rows if columns is None else as_chats(rows, columns)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        what = str(error).partition("\n")[0]
        raise OpsError(f"cannot read {name} as Parquet: {what}", "Write the file again.") from error


def _group_rows(
    table: Any, size: UnpackedSize, start: int, stop: int | None
) -> Iterator[SourceRow]:
    schema = table.schema.to_arrow_schema()
    stop = table.metadata.num_rows if stop is None else min(stop, table.metadata.num_rows)
    first = 0
    for group in range(table.metadata.num_row_groups):
        end = first + table.metadata.row_group(group).num_rows
        if first < stop and end > start:
            size.check_group(group)
            number = first
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                lines = batch.slice(max(start - number, 0), stop - max(start, number))
                for line, part in size.parts(lines, max(start, number)):
                    for offset, row in enumerate(_plain(part, schema).to_pylist(), 1):
                        yield SourceRow(line + offset, row)
                number += batch.num_rows
        first = end


def _plain(batch: Any, schema: Any) -> Any:
    """Return a batch with texts instead of dictionaries, which become Python objects twice as fast."""
    import pyarrow

    try:
        return batch.cast(schema)
    except pyarrow.ArrowException:  # a type that cannot be cast
        return batch


# -- columns -----------------------------------------------------------------------------------------


def require_columns(name: str, columns: Sequence[str], required: Sequence[str]) -> None:
    """Check the header of a table.

    Args:
        name: name of the table, for errors.
        columns: columns of the table.
        required: columns that it must have.

    Raises:
        OpsError: a column is missing; the error names it and the columns of the table.
    """
    for column in required:
        if column not in columns:
            fix = "Select existing columns with --prompt-column and --answer-column."
            more = f" and {len(columns) - MAX_LISTED} more" if len(columns) > MAX_LISTED else ""
            names = ", ".join(columns[:MAX_LISTED]) + more
            raise OpsError(f"{name} has no column {column!r}, only {names}", fix)


def as_chats(rows: Iterator[SourceRow], columns: TextColumns) -> Iterator[SourceRow]:
    """Convert rows with a prompt and an answer to rows with `messages`; other columns are kept.

    A preference has two answers, and its chat ends with the chosen one.
    """
    required = set(columns[:2])
    for source_row in rows:
        row = source_row.row
        if source_row.problem:
            yield source_row
        elif isinstance(columns, PreferenceColumns):
            pair = as_chat(row)
            if isinstance(pair, Problem):
                yield source_row._replace(problem=pair)
            else:
                yield SourceRow(source_row.line, pair)
        elif isinstance(row, dict) and row.keys() >= required:
            prompt, answer = row.pop(columns.prompt), row.pop(columns.answer)
            context = row.get(columns.context) if columns.context else None
            if isinstance(prompt, str) and isinstance(context, str) and context.strip():
                prompt = f"{prompt}\n\n{context}"
            messages = [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": answer},
            ]
            chat = {"prompt": prompt, "messages": messages, **row}
            yield SourceRow(source_row.line, chat)
        else:
            detail = f"no {columns[0]!r} and {columns[1]!r}"
            yield source_row._replace(problem=Problem(NO_MESSAGES, detail))


FORMATS: dict[str, Callable[[Path, Columns], Iterator[SourceRow]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_csv,
}
