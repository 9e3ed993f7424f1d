"""Write files and folders completely or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import OpsError
from .locks import try_lock, wait_for_lock

# A temporary folder has this prefix, the file `OWNER_FILE`, and its content in `content`.
_STAGING_PREFIX = ".new-"
OWNER_FILE = "phi3-temporary-folder"  # locked while the process that made the folder is alive
_OWNER_HEADER = "Made by phi3, which deletes this folder. Files that are being moved:\n"
_END = "."  # last line of a complete owner file


@contextmanager
def atomic_file(path: Path, mode: int = 0o666) -> Iterator[IO[str]]:
    """Open a text file for writing that appears as `path` only when the block ends without an error.

    A new file gets the permissions that the umask allows; an existing one keeps its permissions. The
    temporary files of killed processes are deleted.

    Args:
        path: the file.
        mode: permissions of a new file before the umask.

    Raises:
        OpsError: the folder cannot be written.
    """
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_stale_files(path)
        descriptor, temporary = _create_temporary_file(path, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            if path.is_file():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            if os.name == "posix":  # Windows cannot rename an open file
                os.replace(temporary, path)
        if os.name != "posix":
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.phi3-"


def _create_temporary_file(path: Path, mode: int) -> tuple[int, Path]:
    """Create a temporary file next to a file, and return its locked descriptor and its path."""
    while True:
        temporary = path.with_name(_temporary_prefix(path) + secrets.token_hex(4))
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        with suppress(OSError):  # without locks, nobody else deletes it either
            wait_for_lock(descriptor)
        if temporary.exists():
            return descriptor, temporary
        os.close(descriptor)  # another process took it for a stale one


def _delete_stale_files(path: Path) -> None:
    """Delete the temporary files of a file whose processes were killed."""
    name = re.compile(re.escape(_temporary_prefix(path)) + "[0-9a-f]{8}")
    for candidate in path.parent.glob(".*.phi3-*"):
        if not name.fullmatch(candidate.name):
            continue
        with _lock_of_dead_owner(candidate) as is_stale:
            if is_stale:
                candidate.unlink(missing_ok=True)


@contextmanager
def _lock_of_dead_owner(file: Path) -> Iterator[bool]:
    """Lock a file, and yield whether it could be locked: then the process that made it has ended."""
    try:
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        yield False
        return
    try:
        status = os.fstat(descriptor)
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == _user_id(status.st_uid)
        try:
            is_stale = is_ours and try_lock(descriptor)
        except OSError:
            is_stale = False
        yield is_stale
    finally:
        os.close(descriptor)


def _user_id(default: int) -> int:
    return os.geteuid() if hasattr(os, "geteuid") else default


@contextmanager
def atomic_folder(folder: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block ends without an error.

    Either all files move or none. On an error, the earlier files are put back, and a folder that did
    not exist is not created. The earlier file `last` is removed first, and the new one is moved last.
    If it exists, all files next to it are of the same run, even if the machine stopped in between.

    The temporary folders of killed processes are deleted, and their earlier files are put back.

    Args:
        folder: folder to write to.
        last: name of the file that is moved last.

    Raises:
        OpsError: the folder cannot be written.
    """
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    with _staging_folder(parent, folder) as staging:
        content = staging / "content"
        with _writable(folder):
            content.mkdir()
        yield content
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _move_all(staging, folder, last)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder to create; it becomes `folder` when the block ends without an error.

    Args:
        folder: the folder; it must be empty or not exist.

    Raises:
        OpsError: the folder is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OpsError(f"{folder} is not empty", "Choose another folder, or empty it.")
    with _writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _staging_folder(folder.parent, folder) as staging:
        content = staging / "content"
        yield content
        with _writable(folder):
            if folder.exists():
                folder.rmdir()
            content.rename(folder)


@contextmanager
def _staging_folder(parent: Path, target: Path) -> Iterator[Path]:
    """Yield a temporary folder, and delete it; delete those of killed processes before.

    Args:
        parent: folder in which it is created.
        target: folder that is written, for the error.
    """
    with _writable(target):
        for folder in {parent, target.parent, target}:  # the target may not have existed before
            for owner_file in folder.glob(f"{_STAGING_PREFIX}*/{OWNER_FILE}"):
                _delete_stale_folder(owner_file)
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=_STAGING_PREFIX))
        owner = (staging / OWNER_FILE).open("x", encoding="utf-8")
    try:
        with suppress(OSError):  # without locks, nobody else deletes it either
            wait_for_lock(owner.fileno())
        with _writable(target):
            owner.write(_OWNER_HEADER)  # without it, nobody deletes the folder
            owner.flush()
        yield staging
    finally:
        owner.close()
        _delete_staging(staging)


def _delete_stale_folder(owner: Path) -> None:
    """Delete the temporary folder of a killed process, and put earlier files back."""
    with _lock_of_dead_owner(owner) as is_stale:
        if not is_stale or owner.parent.is_symlink():
            return
        staging, text = owner.parent, owner.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(_OWNER_HEADER):
            return
        *names, end = text.removeprefix(_OWNER_HEADER).split("\n")[:-1] or [""]
        is_complete = end == _END and all(Path(name).name == name for name in names)
        if is_complete and any((staging / "content" / name).exists() for name in names):
            _put_back(staging, staging.parent, names)
    _delete_staging(staging)


def _delete_staging(staging: Path) -> None:
    """Delete a temporary folder. Its owner file goes last: without it, nobody deletes the rest."""
    for name in ("content", "earlier"):
        shutil.rmtree(staging / name, ignore_errors=True)
    with suppress(OSError):
        (staging / OWNER_FILE).unlink(missing_ok=True)
        staging.rmdir()


def _move_all(staging: Path, folder: Path, last: str) -> None:
    content, earlier = staging / "content", staging / "earlier"
    names = sorted((p.name for p in content.iterdir()), key=lambda name: name == last)
    earlier.mkdir()
    if staging.parent.samefile(folder):  # otherwise, the folder is new, and nothing is put back
        with (staging / OWNER_FILE).open("a", encoding="utf-8") as owner:
            owner.writelines(f"{name}\n" for name in [*names, _END])
    try:
        for name in reversed(names):
            if (folder / name).exists():
                os.replace(folder / name, earlier / name)
        for name in names:
            os.replace(content / name, folder / name)
    except BaseException:
        _put_back(staging, folder, names)
        raise


def _put_back(staging: Path, folder: Path, names: Iterable[str]) -> None:
    """Undo `_move_all`: remove the new files, and move the earlier ones back."""
    for name in names:
        is_moved = not (staging / "content" / name).exists()
        if is_moved:
            _remove(folder / name)
        if (staging / "earlier" / name).exists():
            os.replace(staging / "earlier" / name, folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}"
        raise OpsError(what, "Choose another folder.") from error
