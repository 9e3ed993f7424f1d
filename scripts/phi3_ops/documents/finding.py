"""Find the documents of a folder. Links are not followed, so that nothing outside the folder is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import OpsError
from ..files import read_marker
from .readers import READERS


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not read, or cannot be read.

    Attributes:
        name: its path in the folder.
        reason: why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class FoundFile:
    """A document to read: its path in the folder as text, and its path."""

    name: str
    path: Path


def find_documents(
    folder: Path, left_out: Collection[Path] = ()
) -> tuple[list[FoundFile], list[SkippedFile]]:
    """Return the documents of a folder and its subfolders, sorted by name, and the other files.

    Hidden files and folders, and files that phi3 wrote, are left out without being listed.

    Args:
        folder: the folder, or one document.
        left_out: files that are neither read nor listed.

    Raises:
        OpsError: the folder does not exist, or contains no document.
    """
    if folder.is_file():
        entries: Iterator[tuple[Path, str]] = iter([(folder, _problem(folder))])
        root = folder.parent
    elif folder.is_dir():
        entries, root = _walk(folder), folder
    else:
        raise OpsError(f"{folder} does not exist", "Give a folder with documents.")
    found: list[FoundFile] = []
    skipped: list[SkippedFile] = []
    not_documents = {os.path.realpath(path) for path in left_out}
    for path, reason in entries:
        if os.path.realpath(path) in not_documents:
            continue
        name = _readable_name(path, root)
        if reason:
            skipped.append(SkippedFile(name, reason))
        else:
            found.append(FoundFile(name, path))
    if not found:
        reasons = "; ".join(f"{file.name}: {file.reason}" for file in skipped[:3])
        known = ", ".join(READERS)
        detail = f" ({reasons})" if reasons else ""
        raise OpsError(f"{folder} contains no document{detail}", f"Documents end with {known}.")
    return found, skipped


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a folder and the reason for which each is not read; empty if it is read."""
    waiting = [folder]
    written_by_phi3: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in written_by_phi3:
            continue
        if path != folder and (path.is_symlink() or not path.is_dir()):
            yield path, _problem(path)
            continue
        try:
            entries = sorted(path.iterdir(), reverse=True)
        except OSError as error:
            yield path, f"the folder cannot be opened: {error.strerror}"
            continue
        if marker := read_marker(path):
            written_by_phi3 |= {path / name for name in marker.files | marker.unfinished}
        waiting += [entry for entry in entries if not entry.name.startswith(".")]


def _problem(path: Path) -> str:
    try:
        status = path.lstat()
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "it is a link; links are not followed"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return "" if path.suffix.lower() in READERS else "its format is not supported"


def _readable_name(path: Path, root: Path) -> str:
    """Return the path of a file in the folder as text that can be written as UTF-8."""
    name = os.fsencode(path.relative_to(root))
    return name.decode("utf-8", "replace").replace(os.sep, "/")
