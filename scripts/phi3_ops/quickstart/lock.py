"""One quickstart at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OpsError
from ..files import file_lock, record_files, refuse_foreign_files

LOCK_FILE = ".quickstart.lock"


@contextmanager
def only_quickstart(workdir: Path) -> Iterator[None]:
    """Be the only quickstart of a folder inside the block.

    The system releases the lock when the process ends, even if it is killed.

    Args:
        workdir: the folder; it is created if it does not exist.

    Raises:
        OpsError: a quickstart is running in the folder, or the folder cannot be written.
    """
    refuse_foreign_files(workdir, [LOCK_FILE])
    record_files(workdir, [LOCK_FILE])
    try:
        lock = file_lock(workdir / LOCK_FILE, timeout_s=0)
        lock.__enter__()
    except TimeoutError:
        what = f"a quickstart is already running in {workdir}"
        fix = "Wait for its end or stop it with Ctrl-C, or give another --workdir."
        raise OpsError(what, fix) from None
    except OSError as error:
        what = f"cannot lock {workdir / LOCK_FILE}: {error.strerror}"
        raise OpsError(what, "Choose another --workdir.") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
