"""Serve a GGUF file with llama.cpp's own server, in a process of its own (`serve_gguf.py`)."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OpsError

SCRIPT = Path(__file__).with_name("serve_gguf.py")
KEY_VARIABLE = "PHI3_LLAMA_KEY"  # the script reads its key from it
START_TIMEOUT_S, STOP_TIMEOUT_S = 300.0, 20.0
_ADDRESS = "listening on "
LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class LlamaServer:
    """A running server.

    Attributes:
        url: its base URL.
        key: key that requests must send as a bearer token.
    """

    url: str
    key: str

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            OpsError: the server refused it.
        """
        import requests

        headers = {"Authorization": f"Bearer {self.key}"}
        response = requests.post(f"{self.url}{path}", json=body, headers=headers, timeout=300)
        if not response.ok:
            raise OpsError(f"llama.cpp refused {path}: {response.text[:LONGEST_MESSAGE]}")
        answer: dict[str, Any] = response.json()
        return answer


@contextmanager
def llama_server(
    file: Path, *, slots: int = 1, tokens: int = 512, threads: int | None = None
) -> Iterator[LlamaServer]:
    """Serve a GGUF file inside the block.

    Args:
        file: the GGUF file.
        slots: number of requests that are answered at once.
        tokens: context window of each slot in tokens.
        threads: number of threads; None takes one per processor.

    Raises:
        OpsError: llama.cpp cannot load the file; the error has its last message.
    """
    key = secrets.token_urlsafe(32)
    words = [str(file), str(slots), str(tokens), str(threads or os.cpu_count() or 1)]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, KEY_VARIABLE: key},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    timer = threading.Timer(START_TIMEOUT_S, process.kill)
    timer.start()
    reader = threading.Thread(target=_drop_output, args=[process.stdout], daemon=True)
    try:
        url = _read_address(process, file)
        timer.cancel()
        reader.start()
        yield LlamaServer(url, key)
    finally:
        timer.cancel()
        _stop(process)
        if reader.is_alive():
            reader.join(STOP_TIMEOUT_S)
        if process.stdout:
            process.stdout.close()


def _drop_output(output: Iterable[str]) -> None:
    """Read the output of a process until it ends, so that the pipe does not fill."""
    for _ in output:
        pass


def _read_address(process: subprocess.Popen[str], file: Path) -> str:
    """Return the address that the process prints."""
    output: Iterable[str] = process.stdout or ()
    lines = []
    for line in output:
        if line.startswith(_ADDRESS):
            return line.removeprefix(_ADDRESS).strip()
        lines.append(line.strip())
    errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    message = (errors or lines or [f"exit code {process.wait()}"])[-1]
    raise OpsError(f"llama.cpp cannot load {file}: {message[:LONGEST_MESSAGE]}")


def _stop(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
