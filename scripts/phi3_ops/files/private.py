"""Folders that only their owner can open."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import OpsError


def private_folder(path: Path, fix: str) -> Path:
    """Return a folder that only this user can open. It is created if it does not exist.

    Args:
        path: the folder.
        fix: what to do if the folder cannot be used, for the error.

    Raises:
        OpsError: the folder cannot be created, is a link, or another user can open it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError as error:
        raise OpsError(f"cannot create {path}: {error.strerror}", fix) from error
    is_private = not hasattr(os, "geteuid") or (  # on Windows, a user's folders are private
        status.st_uid == os.geteuid() and not status.st_mode & 0o077
    )
    if not stat.S_ISDIR(status.st_mode) or not is_private:
        raise OpsError(f"{path} is not a folder that only you can open", fix)
    return path
