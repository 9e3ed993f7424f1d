"""Which files this product wrote: a marker in each output folder lists them.

Only files that a marker lists are replaced or removed. A marker has an id, the files of its folder, the
names that an unfinished command writes to, and the connections that lead to endpoints of the folder.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import OpsError
from .json_files import load_json_object, write_json
from .locks import TIMEOUT_S, try_lock

MARKER_FILE = ".phi3-made"
_MADE_BY = "phi3"
_POLL_S = 0.01
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Marker:
    """The content of a marker file.

    Attributes:
        id: id of the folder, 32 hexadecimal digits.
        files: files that this product wrote, relative to the folder, with `/` between the parts.
        folders: folders that this product made, likewise; they are removed if they are empty.
        unfinished: names in the folder that a command began to write and has not listed yet.
        connections: name of a connection -> scoring URL of the folder's endpoint that it got.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    files: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    connections: Mapping[str, str] = field(default_factory=dict)

    def owns(self, path: str) -> bool:
        """Return whether this product wrote a file, given as in `files`."""
        return path in self.files or path.partition("/")[0] in self.unfinished

    def to_json(self) -> dict[str, Any]:
        """Return the content of the marker file."""
        return {
            "made by": _MADE_BY,
            "id": self.id,
            "files": sorted(self.files),
            "folders": sorted(self.folders),
            "unfinished": sorted(self.unfinished),
            "connections": dict(self.connections),
        }


def read_marker(folder: Path) -> Marker | None:
    """Return the marker of a folder; None if it is missing, or this product cannot have written it."""
    file = folder / MARKER_FILE
    if file.is_symlink():
        return None
    try:
        content = load_json_object(file)
        files, folders, unfinished = (content[key] for key in ("files", "folders", "unfinished"))
        connections = content["connections"]
        valid = content["made by"] == _MADE_BY and _ID.fullmatch(content["id"])
        valid = valid and all(map(_is_inside, [*files, *folders, *unfinished]))
        # A name only: a path could lead through a link.
        valid = valid and not any("/" in name for name in unfinished)
        valid = valid and all(isinstance(url, str) for url in connections.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not valid:
        return None
    paths = (frozenset(files), frozenset(folders), frozenset(unfinished))
    return Marker(content["id"], *paths, connections)


def _is_inside(path: Any) -> bool:
    """Return whether an entry of a marker is a path inside the folder."""
    if not isinstance(path, str) or "\\" in path or ":" in path or "\0" in path:
        return False
    return not any(part in ("", ".", "..") for part in path.split("/"))


# -- before and after writing ------------------------------------------------------------------------


def refuse_foreign_files(
    folder: Path, names: Iterable[str], caches: re.Pattern[str] | None = None
) -> None:
    """Raise OpsError if a command would replace a file that this product did not write.

    Args:
        folder: output folder of the command; it need not exist.
        names: files and folders in it that the command replaces.
        caches: names of folders in these folders that this product writes without listing them.
    """
    if path := find_foreign_file(folder, names, caches):
        raise OpsError(
            f"{path} exists, and phi3 did not write it", "Move it, or choose another folder."
        )


def find_foreign_file(
    folder: Path, names: Iterable[str], caches: re.Pattern[str] | None = None
) -> Path | None:
    """Return the first file that this product did not write; see `refuse_foreign_files`."""
    marker = read_marker(folder) or Marker()
    paths = (path for name in names for path in _files_of(folder / name, caches))
    return next((p for p in paths if not marker.owns(p.relative_to(folder).as_posix())), None)


def _files_of(path: Path, caches: re.Pattern[str] | None = None) -> Iterator[Path]:
    """Yield a file or a link; for a folder, all files and links in it. Nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            if not (caches and caches.fullmatch(child.name)):
                yield from _files_of(child, caches)
    elif os.path.lexists(path):
        yield path


def _folders_of(path: Path) -> Iterator[Path]:
    """Yield a folder and all folders in it. Nothing for a file or a link."""
    if path.is_dir() and not path.is_symlink():
        yield path
        for child in path.iterdir():
            yield from _folders_of(child)


def begin_writing(folder: Path, names: Iterable[str]) -> None:
    """Note that a command writes to these names; `refuse_foreign_files` allowed it.

    The folder is created if it does not exist. If the command is killed, its files still count as this
    product's.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _marker_to_change(folder) as changed:
        changed.append(replace(changed[0], unfinished=changed[0].unfinished | set(names)))


def finish_writing(folder: Path, names: Iterable[str]) -> None:
    """List the files that a command wrote to these names, in place of earlier ones.

    Raises:
        OpsError: the folder cannot be written.
    """
    names = set(names)
    files = {path for name in names for path in _files_of(folder / name)}
    folders = {path for name in names for path in _folders_of(folder / name)}
    with _marker_to_change(folder) as changed:
        marker = changed[0]
        changed.append(
            replace(
                marker,
                files=_replaced(marker.files, names, folder, files),
                folders=_replaced(marker.folders, names, folder, folders),
                unfinished=marker.unfinished - names,
            )
        )


def _replaced(
    entries: frozenset[str], names: set[str], folder: Path, paths: Iterable[Path]
) -> frozenset[str]:
    """Return the entries of a marker with these paths in place of those with these names."""
    others = {entry for entry in entries if entry.partition("/")[0] not in names}
    return frozenset(others | {path.relative_to(folder).as_posix() for path in paths})


def record_files(folder: Path, names: Iterable[str]) -> None:
    """Add files to the marker of a folder; the folder and the marker are created if necessary.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _marker_to_change(folder) as changed:
        changed.append(replace(changed[0], files=changed[0].files | set(names)))


def record_connection(folder: Path, name: str, url: str) -> None:
    """Note that a connection got the scoring URL of an endpoint of this folder.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _marker_to_change(folder) as changed:
        changed.append(replace(changed[0], connections={**changed[0].connections, name: url}))


def stage_marker(staging: Path, folder: Path, names: Iterable[str]) -> None:
    """Write a marker that moves into `folder` together with new files.

    Args:
        staging: folder from which the files move.
        folder: folder to which they move.
        names: names of the files.
    """
    marker = read_marker(folder) or Marker()
    write_json(staging / MARKER_FILE, replace(marker, files=marker.files | set(names)).to_json())


@contextmanager
def _marker_to_change(folder: Path) -> Iterator[list[Marker]]:
    """Yield a list with the marker; if the block appends another one, that is written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot write {folder}: {error.strerror}"
        raise OpsError(what, "Choose another folder.") from error
    with _folder_lock(folder):
        present = read_marker(folder)
        markers = [present or Marker()]
        yield markers
        if markers[-1] != present:
            write_json(folder / MARKER_FILE, markers[-1].to_json())


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Hold a lock of the folder itself, which needs no file; where that is impossible, no lock."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + TIMEOUT_S
        with suppress(OSError):
            while not try_lock(descriptor) and time.monotonic() < end:
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


# -- removal -----------------------------------------------------------------------------------------


def require_own_folder(folder: Path) -> None:
    """Raise OpsError if a folder may be more than an output folder, so that it must not be removed.

    This is the case for a link, the current folder, the home folder, a folder that contains one of
    these, and a folder with `.git`.
    """
    reason = _reason_to_keep(folder)
    if reason:
        raise OpsError(f"refusing to use {folder}: it {reason}", "Choose another --workdir.")


def _reason_to_keep(folder: Path) -> str:
    if folder.is_symlink():
        return "is a link"
    resolved = folder.resolve()
    protected = {"the current folder": Path.cwd().resolve()}
    with suppress(RuntimeError):  # there is no home folder
        protected["the home folder"] = Path.home().resolve()
    for name, path in protected.items():
        if resolved == path:
            return f"is {name}"
        if resolved in path.parents:
            return f"contains {name}"
    return "contains .git" if os.path.lexists(folder / ".git") else ""


def remove_own_files(folder: Path, caches: re.Pattern[str] | None = None) -> list[Path]:
    """Remove the files that the folder's marker lists, the marker, and all folders that are empty then.

    Links are removed, not followed; nothing below a link is removed.

    Args:
        folder: a folder with a marker.
        caches: names of folders that this product writes next to its files without listing them.

    Returns:
        The files that stay, because this product did not write them.
    """
    marker = None if folder.is_symlink() else read_marker(folder)
    if marker is None:
        return list(_files_of(folder))
    for entry in sorted(marker.unfinished):
        _remove(folder / entry)
    for entry in sorted(marker.files):
        path = folder / entry
        if not _is_below_link(folder, path) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
    parents = {parent for entry in marker.files for parent in _parents(folder, folder / entry)}
    parents |= {folder / entry for entry in marker.folders}
    for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        if parent.is_dir() and not _is_below_link(folder, parent / "x"):
            _remove_caches(parent, caches)
            with suppress(OSError):  # it is not empty
                parent.rmdir()
    (folder / MARKER_FILE).unlink(missing_ok=True)
    _remove_caches(folder, caches)
    with suppress(OSError):
        folder.rmdir()
    return list(_files_of(folder))


def _parents(folder: Path, path: Path) -> list[Path]:
    """Return the folders between `folder` and `path`, without both."""
    return [parent for parent in path.parents if folder in parent.parents]


def _is_below_link(folder: Path, path: Path) -> bool:
    return any(parent.is_symlink() for parent in _parents(folder, path))


def _remove_caches(folder: Path, caches: re.Pattern[str] | None) -> None:
    for child in list(folder.iterdir()) if caches else []:
        if caches and caches.fullmatch(child.name):
            _remove(child)


def _remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
