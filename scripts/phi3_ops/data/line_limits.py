"""Read lines of limited length, so that a file without line ends does not fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, AnyStr

from ..errors import OpsError

MAX_LINE = 16 << 20  # bytes of a line of JSONL, or characters of a record of a CSV file


def bounded_lines(file: IO[AnyStr], name: str) -> Iterator[AnyStr]:
    """Yield the lines of an open file.

    Args:
        file: the file, opened for reading.
        name: name of the file, for the error.

    Raises:
        OpsError: a line is longer than `MAX_LINE`; no more than that is read of it.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise too_long(f"{name}, line {number}")
        yield line


def too_long(location: str) -> OpsError:
    """Return the error for a line or a record that is too long.

    Args:
        location: the file and the line.
    """
    return OpsError(f"{location} is longer than {MAX_LINE:,} bytes", "Write one row per line.")
