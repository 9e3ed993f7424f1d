"""Read JSON and JSONL, and write them completely or not at all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import OpsError
from .atomic import atomic_file

JSONL_FIX = "Give a JSONL file, with one JSON object per line."
ARRAY_FIX = "Give a JSON file with one array of objects, or a JSONL file."


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        OpsError: the folder cannot be written.
    """
    with atomic_file(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], mode: int = 0o666) -> None:
    """Write one JSON object per line, completely or not at all.

    Args:
        path: the file.
        rows: the objects.
        mode: permissions of a new file before the umask.

    Raises:
        OpsError: the folder cannot be written.
    """
    with atomic_file(path, mode) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def load_json(path: Path) -> Any:
    """Return the value in a JSON file; for callers that say themselves what a damaged file means.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def load_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; see `load_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: as for `load_json`, or the value is not an object.
    """
    value = load_json(path)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; empty lines are skipped.

    A `.json` file may also hold one array of objects.

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
    fix = JSONL_FIX
    if path.suffix.lower() in (".csv", ".tsv"):
        source = shlex.quote(str(path))
        fix = f"Give a JSONL file; `phi3 data --source {source}` writes questions.jsonl."
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        return _array(text, str(path))
    return [
        _object(line, f"{path}, line {number}", fix)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _array(text: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _parse(text, name, ARRAY_FIX)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise OpsError(f"{name}, row {number}: not a JSON object", ARRAY_FIX)
    return rows


def _object(line: str, location: str, fix: str) -> dict[str, Any]:
    row = _parse(line, location, fix)
    if not isinstance(row, dict):
        raise OpsError(f"{location}: not a JSON object", fix)
    return row


def _parse(text: str, location: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OpsError(f"{location}: not JSON ({error})", fix) from error
    except RecursionError as error:
        raise OpsError(f"{location}: nested too deeply", fix) from error
