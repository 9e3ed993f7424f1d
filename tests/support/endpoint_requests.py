"""Requests to an endpoint that runs `tiny_endpoint.SCORE`, and waiting for their effects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
import requests

from tiny_endpoint import HANG_S, KEY

HEADERS = {"authorization": f"Bearer {KEY}"}
DEPLOYMENT = "azureml-model-deployment"


def ask(
    url: str,
    route: str = "/score",
    deployment: str | None = None,
    stream: bool = False,
    **payload: Any,
) -> requests.Response:
    """Post a payload, such as `do="echo"`, to an endpoint or to one of its deployments."""
    headers = {**HEADERS, **({DEPLOYMENT: deployment} if deployment else {})}
    return requests.post(url + route, json=payload, headers=headers, stream=stream, timeout=HANG_S)


def events(chunks: Iterable[bytes]) -> list[str]:
    """Return the data of the server-sent events in the chunks of a body."""
    blocks = b"".join(chunks).decode().split("\n\n")
    return [block.removeprefix("data: ") for block in blocks if block]


def started_stream(url: str, **payload: Any) -> tuple[Iterator[bytes], int]:
    """Return a stream after its first event: its other pieces, and the id of the sending process."""
    response = ask(url, stream=True, do="stream", **payload)
    pieces = response.iter_content(None)
    first = next(pieces)
    return pieces, json.loads(first.split(b"\n\n")[0].removeprefix(b"data: "))["pid"]


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
