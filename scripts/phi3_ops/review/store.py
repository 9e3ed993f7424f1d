"""The file of the judgements beside a run: append-only JSON Lines.

The first line is `{"format": "phi3-review", "version": 1}`, each further line a judgement. A judgement is
on the disk before `append_judgement` returns. What follows the last line end was never acknowledged: its
process was killed, and it is ignored and cut off by the next append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OpsError
from ..files import wait_for_lock
from ..runs import RunLocation, answers_location
from .records import Judgement, latest_judgements

FORMAT, VERSION = "phi3-review", 1
FILE_NAME = "review.jsonl"  # in the folder of a run
_HEADER = json.dumps({"format": FORMAT, "version": VERSION}) + "\n"


def review_file(location: RunLocation) -> Path:
    """Return the file of the judgements of a run, which need not exist.

    It is in the folder of the run. Beside a run that is one file, it has the name of that file, with
    `.review.jsonl` instead of `.jsonl`.
    """
    path = location.path
    return path / FILE_NAME if path.is_dir() else path.with_suffix(f".{FILE_NAME}")


def read_judgements(run: str) -> list[Judgement]:
    """Return the judgements of a run that hold, in the order in which they were made.

    A judgement that was replaced or withdrawn is left out; see `latest_judgements`. A choice between
    several runs is among the judgements of each of them.

    Args:
        run: name or display name of a run, the folder of a run, or a JSONL file with answers. An
            evaluation stands for the run that it scored.

    Raises:
        OpsError: the run does not exist, or the file of its judgements is damaged or of a newer version.
    """
    return latest_judgements(read_file(review_file(answers_location(run))))


def read_file(file: Path) -> list[Judgement]:
    """Return all judgements of a file; none if the file does not exist.

    Raises:
        OpsError: the file cannot be read, is damaged or is of a newer version.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OpsError(f"cannot read {file}: {error.strerror}", "Check its permissions.") from error
    header, line_end, rest = content.partition(b"\n")
    _check_header(file, header + line_end)
    lines = rest.split(b"\n")[:-1]
    return [_read_line(file, number, line) for number, line in enumerate(lines, 2)]


def append_judgement(file: Path, judgement: Judgement) -> None:
    """Append a judgement to a file, and return when the disk has it. The file is created if missing.

    Raises:
        OpsError: the file cannot be written, or is of a newer version.
    """
    try:
        with _locked(file) as descriptor:
            size = _prepare(file, descriptor)
            try:
                _write(descriptor, json.dumps(judgement.to_json()).encode() + b"\n", size)
            except OSError:
                with suppress(OSError):  # what was not acknowledged is not kept
                    os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        raise OpsError(
            f"cannot write {file}: {error.strerror or error}",
            "The judgement was not saved. Free some space or correct the permissions, and judge the "
            "line again.",
        ) from error


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Open a file for reading and writing, and hold its lock."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags, 0o600)
    try:
        if not wait_for_lock(descriptor):
            raise TimeoutError("another process holds its lock")
        yield descriptor
    finally:
        os.close(descriptor)


def _prepare(file: Path, descriptor: int) -> int:
    """Check the file, cut off an incomplete last line, write a missing header, and return the size."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = b""
    while len(content) < size and (block := os.read(descriptor, size - len(content))):
        content += block
    header, line_end, _ = content.partition(b"\n")
    _check_header(file, header + line_end)
    end = content.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(descriptor, end)
    if end:
        return end
    _write(descriptor, _HEADER.encode(), 0)
    return len(_HEADER)


def _write(descriptor: int, content: bytes, position: int) -> None:
    """Write bytes at a position of a file, and wait until the disk has them."""
    os.lseek(descriptor, position, os.SEEK_SET)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _check_header(file: Path, header: bytes) -> None:
    """Raise OpsError if the first line is not that of this version's file.

    A part of the header without its line end is accepted: its process was killed.
    """
    if not header.endswith(b"\n"):
        if _HEADER.encode().startswith(header):
            return
        header = b""
    try:
        content = json.loads(header)
        is_review, version = content["format"] == FORMAT, content["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        is_review, version = False, None
    if not is_review or type(version) is not int:
        raise OpsError(f"{file} is not a file of judgements", "Move it to another place.")
    if version > VERSION:
        raise OpsError(
            f"{file} was written by a newer version of phi3 (format {version}, this one knows {VERSION})",
            "Update phi3. The file was not changed.",
        )


def _read_line(file: Path, number: int, line: bytes) -> Judgement:
    try:
        content = json.loads(line)
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        return Judgement.from_json(content)
    except (ValueError, RecursionError) as error:
        what = f"{file}, line {number} is not a judgement: {error}"
        raise OpsError(what, "Remove this line.") from error
