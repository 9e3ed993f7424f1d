"""Read JSONL, and write files and folders completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import OpsError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing that appears as `path` only when the block ends without an error.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block ends without an error.

    Either all files move or none. On an error, the earlier files are put back, and a folder that did
    not exist is not created. The earlier file `last` is removed first, and the new one is moved last.
    If it exists, all files next to it are of the same run, even if the machine stopped in between.

    Args:
        folder: folder to write to.
        last: name of the file that is moved last.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _writable(folder):
        parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))
    try:
        with _writable(folder):
            yield staging
            folder.mkdir(parents=True, exist_ok=True)
            _move_all(staging, folder, last)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder to create; it becomes `folder` when the block ends without an error.

    Args:
        folder: the folder; it must be empty or not exist.

    Raises:
        OpsError: the folder is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OpsError(f"{folder} is not empty", "Choose another folder, or remove it.")
    with _writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        parent = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-")
    with parent as name:
        staging = Path(name) / "folder"
        yield staging
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)


def _move_all(staging: Path, folder: Path, last: str) -> None:
    names = sorted((p.name for p in staging.iterdir()), key=lambda name: name == last)
    earlier = staging / "earlier"
    earlier.mkdir()
    try:
        for name in reversed(names):
            if (folder / name).exists():
                os.replace(folder / name, earlier / name)
        for name in names:
            os.replace(staging / name, folder / name)
    except BaseException:
        for name in names:
            if (earlier / name).exists():
                os.replace(earlier / name, folder / name)
            elif not (staging / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}"
        raise OpsError(what, "Choose another folder.") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        OpsError: the folder cannot be written.
    """
    with atomic_file(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, completely or not at all.

    Raises:
        OpsError: the folder cannot be written.
    """
    with atomic_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; empty lines are skipped.

    Raises:
        OpsError: the file does not exist, or a line is not a JSON object; the error names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise OpsError(f"{path} does not exist", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise OpsError(f"{path} is not UTF-8 (byte {error.start})", "Save it as UTF-8.") from error
    except OSError as error:
        raise OpsError(f"cannot read {path}: {error.strerror}", "Check its permissions.") from error
    return [
        _object(line, f"{path}, line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _object(line: str, location: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise OpsError(
            f"{location}: not JSON ({error})", "Give one JSON object per line."
        ) from error
    if not isinstance(row, dict):
        raise OpsError(f"{location}: not a JSON object", "Give one JSON object per line.")
    return row
