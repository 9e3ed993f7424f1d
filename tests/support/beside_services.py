"""Run a command while the product's services run on their default ports, in the user's own folders.

python tests/support/beside_services.py .venv/bin/python -m pytest -q -m "not slow"

The services are those of a quickstart with the tiny model, `phi3 endpoint` on port 8710 and `phi3 serve`
on port 8080. HOME is a temporary folder for them and for the command, so that both have the same
`~/.promptflow`. The exit status is that of the command. The services are stopped at the end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import requests

from phi3_ops.waiting import wait_until

PHI3 = (sys.executable, "-m", "phi3_ops")
ENDPOINT_PORT, SERVE_PORT = 8710, 8080  # the defaults of `phi3 endpoint` and `phi3 serve`
READY_S = 300.0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the services are stopped, too
    require_free_ports()
    with tempfile.TemporaryDirectory(prefix="phi3-services-") as temporary, ExitStack() as stack:
        home = Path(temporary, "home")
        work = home / "work"
        work.mkdir(parents=True)
        environment = {**os.environ, "HOME": str(home), "PF_TRACING_SKIP_LOCAL_SETUP": "true"}
        environment.pop("PF_HOME_DIRECTORY", None)
        quickstart(work, environment, stack)
        model = work / ".phi3" / "model" / "model"
        start(["endpoint", "--model", str(model), "--replace"], home, environment, stack)
        wait_for(f"http://127.0.0.1:{ENDPOINT_PORT}/")
        start(["serve"], work, environment, stack)
        wait_for(f"http://127.0.0.1:{SERVE_PORT}/health")
        print(f"services run on ports {ENDPOINT_PORT} and {SERVE_PORT}, HOME={home}", flush=True)
        return subprocess.run(sys.argv[1:], env=environment).returncode


def quickstart(work: Path, environment: Mapping[str, str], stack: ExitStack) -> None:
    """Run a quickstart whose endpoint stays; it ends with the stack."""
    stop = [*PHI3, "endpoint", "--stop"]
    stack.callback(subprocess.run, stop, cwd=work, env=environment)
    words = ["quickstart", "--model", "tiny", "--questions", "2", "--epochs", "1"]
    subprocess.run([*PHI3, *words], cwd=work, env=environment, check=True)


def start(words: list[str], folder: Path, environment: Mapping[str, str], stack: ExitStack) -> None:
    """Start a command that runs until the end of the stack."""
    process = stack.enter_context(subprocess.Popen([*PHI3, *words], cwd=folder, env=environment))
    stack.callback(process.terminate)


def require_free_ports() -> None:
    """End the script if a port is in use: then another program would be taken for the services."""
    for port in (ENDPOINT_PORT, SERVE_PORT):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
            except OSError as error:
                sys.exit(f"port {port} is in use: {error.strerror}; end the program that uses it")


def wait_for(url: str) -> None:
    """Wait until a server answers, whatever it answers."""

    def answers() -> bool:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            return False
        return True

    wait_until(answers, bool, timeout_s=READY_S, poll_s=0.2)


if __name__ == "__main__":
    sys.exit(main())
