"""Local endpoints that run in the background: start, find and stop them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import OpsError
from ..files import write_json
from ..waiting import WaitTimeoutError, wait_until

ENDPOINT_KEY_VARIABLE = "PHI3_ENDPOINT_KEY"
START_TIMEOUT_S = 900.0  # a large model takes minutes, above all the first time
STOP_TIMEOUT_S = 40.0  # longer than the endpoint's own grace period for requests in flight
POLL_S = 0.05
_FOLDER = "endpoints"


@dataclass(frozen=True)
class RunningEndpoint:
    """A local endpoint's process. Its key is not in a file, only in the connection store.

    Attributes:
        name: name of the endpoint.
        pid: id of the process.
        started: start of the process, in seconds since the epoch; pids are reused.
        url: scoring URL.
        model: the model folders.
    """

    name: str
    pid: int
    started: float
    url: str
    model: str


def endpoint_state_file(workdir: Path, name: str) -> Path:
    """Return the file in which a running endpoint is registered."""
    return workdir / _FOLDER / f"{name}.json"


def log_file(workdir: Path, name: str) -> Path:
    """Return the file with the output of a background endpoint."""
    return workdir / _FOLDER / f"{name}.log"


def register_endpoint(workdir: Path, name: str, url: str, model: str) -> None:
    """Register this process as the running endpoint of that name. Call it when the endpoint answers."""
    import psutil

    process = psutil.Process()
    running = RunningEndpoint(name, process.pid, process.create_time(), url, model)
    write_json(endpoint_state_file(workdir, name), asdict(running))


def unregister_endpoint(workdir: Path, name: str) -> None:
    """Remove the registration of that name if it is this process's."""
    running = find_endpoint(workdir, name)
    if running and running.pid == os.getpid():
        endpoint_state_file(workdir, name).unlink(missing_ok=True)


def find_endpoint(workdir: Path, name: str) -> RunningEndpoint | None:
    """Return the endpoint of that name if its process is running."""
    try:
        running = RunningEndpoint(
            **json.loads(endpoint_state_file(workdir, name).read_text(encoding="utf-8"))
        )
    except (OSError, ValueError, TypeError):
        return None
    return running if _process(running) else None


def running_endpoints(workdir: Path) -> Iterator[RunningEndpoint]:
    """Yield every endpoint of a workdir whose process is running."""
    for file in sorted((workdir / _FOLDER).glob("*.json")):
        if running := find_endpoint(workdir, file.stem):
            yield running


def _process(running: RunningEndpoint):  # type: ignore[no-untyped-def]
    """Return the endpoint's process, or None if it has ended."""
    import psutil

    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.started) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def start_endpoint(
    model: Path, workdir: Path, name: str, *, key: str, port: int = 0
) -> RunningEndpoint:
    """Start `phi3 endpoint` in the background and wait until it answers.

    Args:
        model: the model folder.
        workdir: folder for its log and its registration.
        name: name of the endpoint; a running endpoint of that name is stopped first.
        key: key that clients must send; the process gets it in its environment.
        port: port to listen on; 0 picks a free one.

    Raises:
        OpsError: the process ended, or it did not answer within `START_TIMEOUT_S`.
    """
    stop_endpoint(workdir, name)
    log = log_file(workdir, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "phi3_ops", "endpoint", "--model", str(model)]
    command += ["--port", str(port), "--name", name, "--workdir", str(workdir), "--no-connect"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, ENDPOINT_KEY_VARIABLE: key},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C ends this command, but not the endpoint
        )
    try:
        return _wait_until_ready(process, workdir, name, log)
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        endpoint_state_file(workdir, name).unlink(missing_ok=True)
        raise


def _wait_until_ready(
    process: subprocess.Popen[bytes], workdir: Path, name: str, log: Path
) -> RunningEndpoint:
    def read() -> RunningEndpoint | None:
        running = find_endpoint(workdir, name)
        if running and running.pid == process.pid:
            return running
        if process.poll() is not None:
            output = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = output[-1] if output else f"exit code {process.returncode}"
            raise OpsError(f"the endpoint {name!r} did not start: {reason}", f"See {log}.")
        return None

    try:
        running = wait_until(read, bool, timeout_s=START_TIMEOUT_S, poll_s=POLL_S)
    except WaitTimeoutError as error:
        what = f"the endpoint {name!r} was not ready within {START_TIMEOUT_S:g} s"
        raise OpsError(what, f"See {log}.") from error
    assert running is not None  # noqa: S101 - for the type checker: `bool` accepts no None
    return running


def stop_endpoint(workdir: Path, name: str) -> bool:
    """Stop an endpoint after its requests in flight, and return whether one was running."""
    import psutil

    running = find_endpoint(workdir, name)
    endpoint_state_file(workdir, name).unlink(missing_ok=True)
    process = _process(running) if running else None
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
    _reap(process.pid)
    return True


def _reap(pid: int) -> None:
    """Collect the exit status if the process was a child of this one."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
