"""azureml-inference-server-http, as Azure runs it around an entry script, on a free port.

It binds every address, whatever gunicorn's settings say, and listens before the script is loaded.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

# It has an environment of its own (see the Makefile), which also sees the packages of this one.
SERVER = Path(sys.prefix) / "server" / "bin" / "azmlinfsrv"
SCORE = Path(__file__).resolve().parents[2] / "scripts" / "serving" / "score.py"
START_S = 240


@dataclass
class Server:
    """A started server; `log` holds what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)

    def healthy(self) -> bool:
        with closing(self.connect()) as connection:
            try:
                connection.request("GET", "/")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def wait(self) -> None:
        """Wait until the server is healthy; if it dies first, raise RuntimeError with its last output."""
        end = time.monotonic() + START_S
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > end:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"the server ended ({self.process.poll()}):\n{tail}")
            time.sleep(0.02)


@contextmanager
def started(model_dir: Path, home: Path, script: Path = SCORE, **env: str) -> Iterator[Server]:
    """Start the server around a script; it may not be healthy yet. home: for what it writes."""
    port = free_port()
    settings = {
        "AZUREML_MODEL_DIR": str(model_dir),
        "GUNICORN_CMD_ARGS": "--threads 16 --keep-alive 75",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(home),
        **env,
    }
    command = [SERVER, "--entry_script", script, "--model_dir", model_dir, "--port", str(port)]
    with running(command, port, home, settings) as server:
        yield server


@contextmanager
def running(
    command: Sequence[object], port: int, home: Path, env: Mapping[str, str]
) -> Iterator[Server]:
    """Run a command that serves on a port, and stop it afterwards.

    Args:
        home: folder that the command runs in, and that gets its output.
        env: variables that are added to this process's.
    """
    log = home / "server.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **env},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(process, port, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with its workers, which are of its process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(20)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
