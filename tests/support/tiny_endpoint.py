"""The real local endpoint on a free loopback port, in threads of the test's process."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phi3_ops.endpoint.container import Container, Deployment
from phi3_ops.endpoint.worker import Worker, import_scoring

KEY = "a-key-for-tests"
HANG_S = 30  # a limit for what must not hang, never a measurement
# Takes the place of the product's scoring script; each question says what it does.
SCORE = """
import json, os, time
from types import SimpleNamespace

class ScoringError(Exception):
    def __init__(self, status):
        self.status, self.body = status, {"error": {"message": "no", "code": status}}

parse = json.loads

def sse(events):
    for event in events:
        yield f"data: {json.dumps(event)}\\n\\n"
    yield "data: [DONE]\\n\\n"

def load(model, name=None):
    if not model.exists():
        raise OSError(f"{model} is no model")
    print("a line on standard output")
    return SimpleNamespace(name=model.name, runtime="a stand-in", answer=answer, stream=stream,
                           close=lambda: None,
                           wants_stream=lambda payload: payload["do"] == "stream")

def answer(payload, is_abandoned):
    if payload["do"] == "die":
        os._exit(3)
    if payload["do"] == "wait":
        open(payload["until"] + "-begun", "w").close()
    while payload["do"] == "wait" and not os.path.exists(payload["until"]):
        if is_abandoned():
            open(payload["until"] + "-abandoned", "w").close()
            break
        time.sleep(0.01)
    if payload["do"] == "fail":
        raise ScoringError(payload["status"])
    return payload

def stream(payload, is_abandoned):
    try:
        for number in range(payload.get("count", 10**9)):
            yield {"number": number, "pid": os.getpid()}
            time.sleep(0.01)
    finally:
        if "closed" in payload:
            open(payload["closed"], "w").close()
"""


class ThreadContainer(Container):
    """A container whose process is a thread, so that it starts at once and loads its model once."""

    def spawn(self) -> Any:
        return _Thread(self.deployment)


class _Thread:
    """The part of `subprocess.Popen` that a container needs."""

    def __init__(self, deployment: Deployment) -> None:
        inside_in, outside_in = os.pipe()
        outside_out, inside_out = os.pipe()
        self.stdin, self.stdout = os.fdopen(outside_in, "wb"), os.fdopen(outside_out, "rb")
        files = os.fdopen(inside_in, "rb"), os.fdopen(inside_out, "wb")
        self._thread = threading.Thread(target=self._run, args=(deployment, *files), daemon=True)
        self._thread.start()

    def _run(self, deployment: Deployment, requests: Any, answers: Any) -> None:
        def send(message: Any) -> None:
            answers.write(json.dumps(message).encode() + b"\n")
            answers.flush()

        with requests, answers:
            scoring = import_scoring(deployment.code)
            scorer = scoring.load(deployment.model)
            threads = deployment.max_concurrent_requests_per_instance
            worker = Worker(scoring, scorer, send, threads)
            worker.ready()
            for line in requests:
                worker.take(line)
            scorer.close()

    def kill(self) -> None:
        raise AssertionError("the thread hangs")

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(HANG_S)
        return 0


@contextmanager
def running(model: Path | list[Container], **options: Any) -> Iterator[str]:
    """Serve a model, or containers, with `create_app(**options)`; gives the base URL."""
    import uvicorn

    from phi3_ops.endpoint.app import create_app
    from phi3_ops.network.http_protocol import HttpProtocol
    from phi3_ops.network.sockets import bind_socket

    is_model = isinstance(model, Path)
    containers = [ThreadContainer(Deployment("blue", model))] if is_model else model
    app = create_app(containers, key=KEY, **options)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started.set()

    config = uvicorn.Config(
        app, http=HttpProtocol, log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = Server(config)
    with bind_socket("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        try:
            for container in containers:
                container.start()
            for container in containers:
                container.wait()
            thread.start()
            assert started.wait(HANG_S), "the endpoint did not start"
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            if thread.ident:
                thread.join(HANG_S)
            for container in containers:
                container.close()


def stand_in(folder: Path, name: str = "blue", **settings: Any) -> Deployment:
    """Make a deployment that loads at once and runs `SCORE`."""
    code, model = folder / "code", folder / name
    code.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    (model / "config.json").touch()
    (code / "score.py").write_text(SCORE)
    return Deployment(name, model, code=code, **settings)
