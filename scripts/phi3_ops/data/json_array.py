"""Read a `.json` file that holds one array, element by element, with limits for hostile files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from ..errors import OpsError
from . import line_limits

CHUNK = 1 << 20  # characters that are read at once
LONGEST_PART = 16  # characters of a constant or an escape, of which only a part may have been read
ARRAY_FIX = "Give a file with one array of objects, or JSONL with one object per line."
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)  # only looks for the end of an element
_SPACE = " \t\r\n"
_SPACES = re.compile(f"[{_SPACE}]*")


def is_array(path: Path) -> bool:
    """Return whether a file is a `.json` file whose first character is an opening bracket."""
    if path.suffix.lower() != ".json":
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while chunk := file.read(CHUNK):
            if text := chunk.lstrip(_SPACE):
                return text.startswith("[")
    return False


def array_elements(path: Path) -> Iterator[tuple[int, Any, str]]:
    """Yield the elements of the array in a file; at most one element and `CHUNK` are in memory.

    Args:
        path: a file for which `is_array` is true.

    Yields:
        The line in which the element begins, from 1; the element, None if it is not valid; the reason,
        "" if it is valid.

    Raises:
        OpsError: the file is not UTF-8 or not one array, or an element is longer than a line may be.
    """
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            yield from _Elements(file, str(path)).read()
        except UnicodeDecodeError as error:
            raise OpsError(f"{path} is not UTF-8 ({error.reason})", "Save it as UTF-8.") from error


class _Elements:
    """The position of the reader in a file with one array."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name = file, name
        self._text, self._start = (
            "",
            0,
        )  # text that was read, and where the unused part of it begins
        self._line = 1

    def read(self) -> Iterator[tuple[int, Any, str]]:
        self._expect("[")
        more = self._next() != "]"
        while more:
            line, text = self._line, self._take_element()
            try:
                yield line, orjson.loads(text), ""
            except orjson.JSONDecodeError as error:
                yield line, None, f"not JSON ({error.msg})"
            if more := self._next() == ",":
                self._expect(",")
                self._next()
        self._expect("]")
        if self._next():
            raise self._error("there is text after the array")

    def _take_element(self) -> str:
        """Return the text of the element that begins here."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._start)
            except RecursionError as error:
                raise self._error("it is nested too deeply") from error
            except ValueError as error:
                is_too_long = len(self._text) - self._start > line_limits.MAX_LINE
                if (is_too_long and not self._is_unfinished(error)) or not self._read_more():
                    reason = getattr(error, "msg", error)
                    raise self._error(f"not JSON ({reason})") from error
            else:
                # A number at the end of the text may go on in the part that was not read yet.
                if end < len(self._text) or not self._read_more():
                    return self._take(end - self._start)

    def _is_unfinished(self, error: ValueError) -> bool:
        """Return whether the cause of an error may be that the rest of the element was not read yet."""
        if getattr(error, "msg", "").startswith("Unterminated string"):
            return True
        return len(self._text) - getattr(error, "pos", 0) <= LONGEST_PART

    def _read_more(self) -> bool:
        """Read as much again as is unused, so that the work grows only with the size of the file."""
        unused = self._text[self._start :]
        if len(unused) > line_limits.MAX_LINE:
            raise line_limits.too_long(f"{self._name}, the row that begins in line {self._line}")
        chunk = self._file.read(max(CHUNK, len(unused)))
        self._text, self._start = unused + chunk, 0
        return bool(chunk)

    def _next(self) -> str:
        """Skip white space; return the next character, "" at the end of the file."""
        while True:
            match = _SPACES.match(self._text, self._start)
            self._take(match.end() - self._start if match else 0)
            if self._start < len(self._text) or not self._read_more():
                return self._text[self._start : self._start + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise self._error(f"{character!r} is missing")
        self._take(1)

    def _take(self, length: int) -> str:
        taken = self._text[self._start : self._start + length]
        self._start += length
        self._line += taken.count("\n")
        return taken

    def _error(self, problem: str) -> OpsError:
        return OpsError(f"{self._name}, line {self._line}: {problem}", ARRAY_FIX)
