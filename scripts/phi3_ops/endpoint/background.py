"""Local endpoints and chat pages that run in the background: start and stop them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import OpsError
from ..waiting import WaitTimeoutError, wait_until
from .registration import (
    RunningEndpoint,
    claim_files,
    endpoint_process,
    find_endpoint,
    log_file,
    remove_note,
    running_endpoints,
    starting_endpoints,
)

ENDPOINT_KEY_VARIABLE = "PHI3_ENDPOINT_KEY"
START_TIMEOUT_S = 900.0  # a large model takes minutes, above all the first time
STOP_TIMEOUT_S = 40.0  # longer than the endpoint's own grace period for requests in flight
KILL_TIMEOUT_S = 10.0  # until the system has ended a killed process
POLL_S = 0.05
_LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
TITLES = {"endpoint": "endpoint", "serve": "chat page"}  # subcommand -> what it is, for people


def start_endpoint(
    model: Path,
    workdir: Path,
    name: str,
    *,
    key: str,
    port: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> RunningEndpoint:
    """Start `phi3 endpoint` in the background and wait until it answers.

    Args:
        model: the model folder.
        workdir: folder for its log and its registration.
        name: name of the endpoint; a running endpoint of that name is stopped first.
        key: key that clients must send; the process gets it in its environment.
        port: port to listen on; 0 picks a free one.
        progress: function that is called with the last line of the log while the model is loaded.

    Raises:
        OpsError: the process ended, it did not answer within `START_TIMEOUT_S`, or its files would
            replace files of others.
    """
    words = ["endpoint", "--model", str(model), "--port", str(port), "--no-connect"]
    environment = {ENDPOINT_KEY_VARIABLE: key}
    return start_background(words, workdir, name, environment=environment, progress=progress)


def start_background(
    words: Sequence[str],
    workdir: Path,
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> RunningEndpoint:
    """Start a `phi3` command in the background, and wait until it has registered itself.

    Args:
        words: the subcommand (a key of TITLES) and its arguments, without `--workdir` and `--name`.
        workdir: folder for its log and its registration.
        name: its name in the workdir; a running process of that name is stopped first.
        environment: variables that are added to its environment.
        progress: function that is called with the last line of the log until the process is ready.

    Raises:
        OpsError: the process ended, it was not ready within `START_TIMEOUT_S`, or its files would
            replace files of others.
    """
    stop_endpoint(workdir, name)
    claim_files(workdir, name)
    log = log_file(workdir, name)
    command = [sys.executable, "-m", "phi3_ops", *words, "--name", name, "--workdir", str(workdir)]
    with _open_log(log) as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C ends this command, but not the endpoint
        )
    try:
        title = f"the {TITLES[words[0]]} {name!r}"
        return _wait_until_ready(process, workdir, name, title, progress)
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        remove_note(workdir, name)
        raise


def _open_log(path: Path) -> IO[bytes]:
    """Return the emptied log, open for writing. A link is an error, because it could lead anywhere."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "wb")
    except OSError as error:
        raise OpsError(f"cannot write {path}: {error.strerror}", "Remove it.") from error


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    workdir: Path,
    name: str,
    title: str,
    progress: Callable[[str], None],
) -> RunningEndpoint:
    log = log_file(workdir, name)

    def read() -> RunningEndpoint | None:
        running = find_endpoint(workdir, name)
        if running and running.pid == process.pid:
            return running
        if process.poll() is not None:
            reason = _last_line(log) or f"exit code {process.returncode}"
            raise OpsError(f"{title} did not start: {reason}", f"See {log}.")
        if line := _last_line(log):
            progress(_LOG_TIME.sub("", line))
        return None

    try:
        running = wait_until(read, bool, timeout_s=START_TIMEOUT_S, poll_s=POLL_S)
    except WaitTimeoutError as error:
        what = f"{title} was not ready within {START_TIMEOUT_S:g} s"
        raise OpsError(what, f"See {log}.") from error
    assert running is not None  # noqa: S101 - for the type checker: `bool` accepts no None
    return running


def _last_line(log: Path) -> str:
    """Return the last line of a log, or nothing if it is empty."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def stop_endpoint(workdir: Path, name: str) -> bool:
    """Stop an endpoint after its requests in flight, and return whether one was running."""
    running = find_endpoint(workdir, name)
    process = endpoint_process(workdir, running) if running else None
    remove_note(workdir, name)
    if process is None:
        return False
    _end(process)
    return True


def stop_all_endpoints(workdir: Path) -> list[str]:
    """Stop every endpoint and chat page of a workdir, also those that are still starting.

    Returns:
        The names of those that were running.
    """
    running = list(running_endpoints(workdir))
    stopped = [each.name for each in running if stop_endpoint(workdir, each.name)]
    for name, process in list(starting_endpoints(workdir)):
        _end(process)
        remove_note(workdir, name)
        stopped.append(name)
    return stopped


def _end(process: Any) -> None:
    """End a process: ask it first, kill it after `STOP_TIMEOUT_S`."""
    import psutil

    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
        with suppress(psutil.TimeoutExpired):
            process.wait(KILL_TIMEOUT_S)
    _reap(process.pid)


def _reap(pid: int) -> None:
    """Collect the exit status if the process was a child of this one."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
