"""Registrations of running endpoints: one owner per name, and no process is taken for another.

Each endpoint has a lock file that it holds while it runs, and a note with its process and its URL. A note
alone proves nothing, because anybody who can write the workdir can write it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import (
    MARKER_FILE,
    read_marker,
    record_files,
    refuse_foreign_files,
    try_lock,
    write_json,
)
from ..names import is_name, require_name

ENDPOINTS_FOLDER = "endpoints"
_PROGRAMS = ("phi3", "phi3.exe", "phi3_ops")
_SUBCOMMANDS = {"endpoint", "serve"}
_MAX_NOTE = 1 << 16  # characters


@dataclass(frozen=True)
class RunningEndpoint:
    """A local endpoint's process. Its key is not in a file, only in the connection store.

    Attributes:
        name: name of the endpoint.
        pid: id of the process.
        started: start of the process, in seconds since the epoch; pids are reused.
        url: scoring URL.
        model: the model folders.
        runtime: what runs the models, for people; empty if it is not known.
    """

    name: str
    pid: int
    started: float
    url: str
    model: str
    runtime: str = ""


def endpoint_state_file(workdir: Path, name: str) -> Path:
    """Return the file with the note of a running endpoint."""
    return workdir / ENDPOINTS_FOLDER / f"{name}.json"


def log_file(workdir: Path, name: str) -> Path:
    """Return the file with the output of a background endpoint."""
    return workdir / ENDPOINTS_FOLDER / f"{name}.log"


def lock_file(workdir: Path, name: str) -> Path:
    """Return the file whose lock an endpoint holds while it runs."""
    return workdir / ENDPOINTS_FOLDER / f"{name}.lock"


def claim_files(workdir: Path, name: str) -> None:
    """Check that the files of an endpoint do not replace files of others, and list them as ours.

    Raises:
        OpsError: the name is not valid, a file exists that this product did not write, or the folder
            cannot be written.
    """
    require_name(name, "name of the endpoint")
    folder = workdir / ENDPOINTS_FOLDER
    if folder.is_symlink():
        raise OpsError(f"{folder} is a link", "Remove it, or choose another --workdir.")
    files = [path(workdir, name).name for path in (endpoint_state_file, log_file, lock_file)]
    refuse_foreign_files(folder, files)
    record_files(folder, files)


@contextmanager
def own_endpoint_name(workdir: Path, name: str) -> Iterator[None]:
    """Be the only endpoint of that name in a workdir while the block runs.

    At the end, the registration of this process is removed.

    Raises:
        OpsError: an endpoint of that name is running, or its files cannot be written.
    """
    is_new = not workdir.exists()
    claim_files(workdir, name)
    lock = lock_file(workdir, name)
    try:
        descriptor = _take_lock(lock)
    except OSError as error:
        what = f"cannot lock {lock}: {error.strerror}"
        raise OpsError(what, "Choose another --workdir.") from error
    if descriptor is None:
        running = find_endpoint(workdir, name)
        details = f" ({running.url}, process {running.pid})" if running else ""
        fix = f"Stop it with `phi3 endpoint --stop --workdir {workdir}`, or choose another --name."
        raise OpsError(f"an endpoint {name!r} of {workdir} is already running{details}", fix)
    try:
        yield
    finally:
        remove_note(workdir, name)
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        os.close(descriptor)
        _remove_if_unused(workdir / ENDPOINTS_FOLDER)
        if is_new:
            with suppress(OSError):  # it is not empty
                workdir.rmdir()


def _take_lock(path: Path) -> int | None:
    """Return the descriptor of the locked file, or None if another process holds the lock.

    The file is removed by its last owner, so the lock counts only if it still has this path.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            if not try_lock(descriptor):
                os.close(descriptor)
                return None
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove_if_unused(folder: Path) -> None:
    """Remove the folder of the endpoints if it contains only a marker."""
    with suppress(OSError):
        if {path.name for path in folder.iterdir()} == {MARKER_FILE}:
            (folder / MARKER_FILE).unlink()
            folder.rmdir()


def register_endpoint(workdir: Path, name: str, url: str, model: str, runtime: str = "") -> None:
    """Register this process, which owns the name, when its endpoint answers."""
    import psutil

    process = psutil.Process()
    running = RunningEndpoint(name, process.pid, process.create_time(), url, model, runtime)
    write_json(endpoint_state_file(workdir, name), asdict(running))


def remove_note(workdir: Path, name: str) -> None:
    """Remove the note of an endpoint if this product wrote it."""
    note = endpoint_state_file(workdir, name)
    marker = read_marker(note.parent)
    if is_name(name) and not note.parent.is_symlink() and marker and marker.owns(note.name):
        note.unlink(missing_ok=True)


def find_endpoint(workdir: Path, name: str) -> RunningEndpoint | None:
    """Return the endpoint of that name if its process is running."""
    running = _read_note(workdir, name)
    return running if running and endpoint_process(workdir, running) else None


def running_endpoints(workdir: Path) -> Iterator[RunningEndpoint]:
    """Yield every endpoint of a workdir whose process is running."""
    for file in sorted((workdir / ENDPOINTS_FOLDER).glob("*.json")):
        if running := find_endpoint(workdir, file.stem):
            yield running


def starting_endpoints(workdir: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and psutil.Process of every endpoint of a workdir that is not registered yet.

    Such an endpoint loads its model. The command that started it may have been killed.
    """
    import psutil

    locks = {str(file.resolve()): file.stem for file in _lock_files(workdir)}
    if not locks or os.name == "nt":  # Windows does not tell which files a process has open
        return
    for process in psutil.process_iter():
        try:
            if not _runs_endpoint(process.cmdline()):
                continue
            names = [locks[file.path] for file in process.open_files() if file.path in locks]
        except (psutil.Error, OSError):
            continue
        for name in names:
            if find_endpoint(workdir, name) is None:
                yield name, process


def _lock_files(workdir: Path) -> list[Path]:
    folder = workdir / ENDPOINTS_FOLDER
    return [] if folder.is_symlink() else sorted(folder.glob("*.lock"))


def _read_note(workdir: Path, name: str) -> RunningEndpoint | None:
    """Return the content of a note; None if it is missing or not valid."""
    note = endpoint_state_file(workdir, name)
    if not is_name(name) or note.is_symlink() or note.parent.is_symlink():
        return None
    try:
        with note.open(encoding="utf-8") as file:
            running = RunningEndpoint(**json.loads(file.read(_MAX_NOTE)))
        valid = isinstance(running.pid, int) and running.pid > 0 and float(running.started) > 0
        texts = (running.url, running.model, running.runtime)
        valid = valid and all(isinstance(text, str) for text in texts)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return running if valid and running.name == name else None


def endpoint_process(workdir: Path, running: RunningEndpoint) -> Any:
    """Return the psutil.Process of an endpoint, or None if it has ended or is another process.

    It is the endpoint if it has the pid and the start time of the note, runs `phi3 endpoint` or
    `phi3 serve`, and has the
    lock file of this workdir and name open.
    """
    import psutil

    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.started) < 1
        if not same or process.status() == psutil.STATUS_ZOMBIE:
            return None
        is_ours = _runs_endpoint(process.cmdline()) and _holds(
            process, lock_file(workdir, running.name)
        )
    except (psutil.Error, OSError):
        return None
    return process if is_ours else None


def _runs_endpoint(words: list[str]) -> bool:
    """Return whether a command line is that of `phi3 endpoint` or `phi3 serve`."""
    programs = [number for number, word in enumerate(words) if Path(word).name in _PROGRAMS]
    return bool(programs) and not _SUBCOMMANDS.isdisjoint(words[programs[0] + 1 :])


def _holds(process: Any, lock: Path) -> bool:
    """Return whether a process has a file open; on Windows, whether any process holds its lock."""
    if os.name != "nt":
        return str(lock.resolve()) in (file.path for file in process.open_files())
    descriptor = _take_lock(lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None
