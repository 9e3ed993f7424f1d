"""Chooses the folder of an export, refuses exports of other users, and locks the folder.

An export determines the model's answers, so another user of the machine must not be able to write it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The last file that an export writes: an export that has it is complete.
SERVING_SETTINGS = "serving.json"
OWN_FOLDER = "delete it, or set PHI3_EXPORT_CACHE to a folder of your own"


class ExportError(Exception):
    """The model cannot be exported, or its export cannot be used. The message is one line."""


def find_folder(model_dir: Path, name: str) -> Path:
    """Return the folder that the export with this name is in, or is to be written to.

    It is PHI3_EXPORT_CACHE if that is set, and otherwise the model's folder. Only if the model's
    folder is read-only (as on Azure) and contains no export, it is the user's own folder in the
    system's temporary folder.

    Raises:
        ExportError: no folder can be used.
    """
    setting = os.environ.get("PHI3_EXPORT_CACHE")
    folder = Path(setting) if setting else model_dir
    if has_export(folder / name) or is_writable(folder):
        return folder
    if not setting:
        return user_folder()
    raise ExportError(f"{folder} is not writable: set PHI3_EXPORT_CACHE to a folder that is")


def user_folder() -> Path:
    """Return this user's folder in the temporary folder. It is created if it does not exist.

    Raises:
        ExportError: another user could write to the folder, or it cannot be created.
    """
    if not hasattr(os, "geteuid"):  # Windows: each user has a temporary folder
        path, uid = Path(tempfile.gettempdir()) / "phi3-exports", None
    else:
        uid = os.geteuid()
        path = Path(tempfile.gettempdir()) / f"phi3-exports-{uid}"
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError as error:
        reason = f"{path} cannot be created ({error.strerror})"
        raise ExportError(
            f"{reason}: set PHI3_EXPORT_CACHE to a folder that is writable"
        ) from error
    private = uid is None or (status.st_uid == uid and not status.st_mode & 0o077)
    if not stat.S_ISDIR(status.st_mode) or not private:
        raise ExportError(f"{path} is not a folder of this user alone: {OWN_FOLDER}")
    return path


def has_export(folder: Path) -> bool:
    """Return whether a folder is a complete export.

    Raises:
        ExportError: it is one, but belongs neither to this user, nor to root, nor to the owner of
            the folder that it is in.
    """
    if not (folder / SERVING_SETTINGS).is_file():
        return False
    if hasattr(os, "geteuid"):
        owner = folder.stat(follow_symlinks=False).st_uid
        if owner not in (os.geteuid(), 0, folder.parent.stat().st_uid):
            raise ExportError(f"{folder} belongs to another user (uid {owner}): {OWN_FOLDER}")
    return True


def is_writable(folder: Path) -> bool:
    """Return whether files can be written in a folder. It is created if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, so that workers that start at the same time export the model once.

    Where files cannot be locked, all of them export, and the first result is kept. A file that
    exists already keeps its content, and a link is not followed.

    Raises:
        ExportError: the file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        lock_file = os.open(path, flags, 0o600)
    except OSError as error:
        raise ExportError(f"{path} cannot be locked: {error.strerror}; {OWN_FOLDER}") from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock_file)
