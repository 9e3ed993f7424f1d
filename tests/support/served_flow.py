"""`phi3 serve` and `pf flow serve` as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import requests

from processes import BIN

HANG_S = 120  # a limit for what must not hang, never a measurement


@dataclass
class Served:
    """A served flow: the URL of its page without the last slash, and its process."""

    url: str
    process: subprocess.Popen[bytes]
    output: IO[str]

    def stop(self) -> str:
        """Send Ctrl-C and return what the process printed."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(HANG_S)
        return _all(self.output)

    def ask(self, question: str, *, side: str = "", **kw: Any) -> requests.Response:
        """Post a question to `/score`; with `stream`, ask for server-sent events."""
        headers = {"accept": "text/event-stream" if kw.get("stream") else "application/json"}
        headers |= kw.pop("headers", {})
        body = {"question": question, "chat_history": []}
        return requests.post(
            f"{self.url}{side}/score", json=body, headers=headers, timeout=HANG_S, **kw
        )


def events(response: requests.Response) -> list[tuple[str, Any]]:
    """Return the server-sent events of a streamed answer: event name and JSON data of each."""
    pairs, name = [], "message"
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        if line.startswith("data: "):
            pairs.append((name, json.loads(line.removeprefix("data: "))))
    return pairs


@contextlib.contextmanager
def phi3_serve(*words: Any, **env: str) -> Iterator[Served]:
    """Run `phi3 serve …` on a free port."""
    command = [BIN / "phi3", "serve", "--port", str(port := free_port()), *map(str, words)]
    with _running(command, f"http://127.0.0.1:{port}", env) as served:
        yield served


@contextlib.contextmanager
def pf_serve(flow: Any, *words: Any, **env: str) -> Iterator[Served]:
    """Run `pf flow serve …` on a free port."""
    port = free_port()
    command = [BIN / "pf", "flow", "serve", "--source", flow, "--port", str(port)]
    command += ["--host", "localhost", "--skip-open-browser", *words]
    with _running(command, f"http://localhost:{port}", env) as served:
        yield served


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[Any], url: str, env: dict[str, str]) -> Iterator[Served]:
    # A file: a pipe that nobody reads would fill up and hold the server back.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )
        try:
            _wait(url, process, output)
            yield Served(url, process, output)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(HANG_S)


def _all(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


def _wait(url: str, process: subprocess.Popen[bytes], output: IO[str]) -> None:
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        assert process.poll() is None, _all(output)
        with contextlib.suppress(requests.ConnectionError):
            # With a password, 401 means that it answers.
            if requests.get(f"{url}/health", timeout=HANG_S).status_code in (200, 401):
                return
        time.sleep(0.1)
    raise AssertionError("the flow is not served")
