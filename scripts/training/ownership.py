"""Which files of the output folder train.py may replace: those that the folder's marker lists.

The marker is that of `phi3 finetune --local`, which phi3_ops/files/ownership.py describes. Either of the
two can write into a folder of the other. This folder is uploaded alone, so it has its own short version.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from inputs import TrainError

MARKER_FILE = ".phi3-made"
MADE_BY = "phi3"
# Folders that the scoring script writes into a model's folder without listing them.
CACHES = re.compile(r"\.?openvino-[a-z0-9]+-[0-9a-f]{16}.*")
LISTS = ("files", "folders", "unfinished")


def refuse_foreign_files(folder: Path, names: Iterable[str]) -> None:
    """Check that train.py or `phi3 finetune` wrote everything that this run will replace.

    Args:
        folder: output folder; it need not exist.
        names: files and folders in it that the run replaces.

    Raises:
        TrainError: a file has another origin.
    """
    marker = _read_marker(folder)
    unfinished, files = set(marker["unfinished"]), set(marker["files"])
    for name in names:
        for path in _files_of(folder / name) if name not in unfinished else ():
            if path.relative_to(folder).as_posix() not in files:
                problem = "the output folder has a file that train.py did not write"
                raise TrainError(problem, path, "move it, or give another --output-dir")


def begin_writing(folder: Path, names: Iterable[str]) -> None:
    """Note that the run replaces these names, so that the next run may, even if this one is killed."""
    marker = _read_marker(folder)
    marker["unfinished"] = sorted({*marker["unfinished"], *names})
    _write_marker(folder, marker)


def finish_writing(folder: Path, names: Iterable[str]) -> None:
    """List the files that the run wrote to these names, in place of earlier ones."""
    names = set(names)
    marker = _read_marker(folder)
    paths = [path for name in names for path in _files_of(folder / name)]
    folders = {parent for path in paths for parent in path.parents if folder in parent.parents}
    for key, added in (("files", paths), ("folders", folders)):
        others = {entry for entry in marker[key] if entry.partition("/")[0] not in names}
        marker[key] = sorted(others | {path.relative_to(folder).as_posix() for path in added})
    marker["unfinished"] = sorted(set(marker["unfinished"]) - names)
    _write_marker(folder, marker)


def _read_marker(folder: Path) -> dict[str, Any]:
    """Return the folder's marker, or an empty one if it is missing or not valid."""
    path = folder / MARKER_FILE
    try:
        marker = {} if path.is_symlink() else json.loads(path.read_text(encoding="utf-8"))
        lists = [marker[key] for key in LISTS]
        valid = marker["made by"] == MADE_BY and isinstance(marker["connections"], dict)
        if valid and all(isinstance(entry, str) for entries in lists for entry in entries):
            return dict(marker)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    empty: dict[str, Any] = {key: [] for key in LISTS}
    return {"made by": MADE_BY, "id": secrets.token_hex(16), **empty, "connections": {}}


def _write_marker(folder: Path, marker: dict[str, Any]) -> None:
    partial = folder / f"{MARKER_FILE}.{os.getpid()}"
    try:
        partial.write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / MARKER_FILE)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = (error.strerror or type(error).__name__).lower()
        fix = f"{reason}; give a folder that you may write to"
        raise TrainError("cannot write the output", folder, fix) from error


def _files_of(path: Path) -> Iterator[Path]:
    """Yield a file or a link; for a folder, all files and links in it, without the caches."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            if not CACHES.fullmatch(child.name):
                yield from _files_of(child)
    elif os.path.lexists(path):
        yield path
