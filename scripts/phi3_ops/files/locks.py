"""Locks between processes. The operating system releases them when a process ends, even if killed."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TIMEOUT_S = 30.0
_POLL_S = 0.01
_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # another process or thread holds the lock


def try_lock(descriptor: int) -> bool:
    """Lock an open file without waiting, and return whether it is locked now.

    Closing the descriptor releases the lock.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def wait_for_lock(descriptor: int, timeout_s: float = TIMEOUT_S) -> bool:
    """Lock an open file, and return whether it is locked now: it is not after the timeout.

    Raises:
        OSError: the file system has no locks.
    """
    deadline = time.monotonic() + timeout_s
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


@contextmanager
def file_lock(path: Path, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Hold the lock of a file inside the block. The file is empty, belongs to its owner, and stays.

    Args:
        path: the file; it is created if it does not exist. A link is refused.
        timeout_s: maximum time to wait for another process, in seconds.

    Raises:
        OSError: the file cannot be opened; a TimeoutError if the lock was not free in time.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if not wait_for_lock(descriptor, timeout_s):
            raise TimeoutError(f"another process holds the lock {path}")
        yield
    finally:
        os.close(descriptor)
