"""A deployment of the local endpoint: what serves a model, and the process that is kept running for it.

Source of the settings: "CLI (v2) managed online deployment YAML schema", request_settings.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import queue
import re
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .. import paths
from ..errors import OpsError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{2,31}")
LOAD_AGAIN_S = (1.0, 30.0)  # wait after a load that failed: doubles from the first to the second
END_S = 5.0  # for the process to end by itself
log = logging.getLogger("phi3.endpoint")


class EndpointError(OpsError):
    """The endpoint cannot be started; the message says why, in one line."""


@dataclass(frozen=True)
class Deployment:
    """One model behind the endpoint.

    Attributes:
        name: 3 to 32 letters, digits and dashes.
        model: a Hugging Face or MLflow model folder.
        weight: percent of the traffic.
        code: the folder with score.py.
        request_timeout_ms: milliseconds that an answer may take.
        max_concurrent_requests_per_instance: requests that are worked on at once; as many again may
            wait. There is one instance.

    Raises:
        EndpointError: a value that Azure would not take.
    """

    name: str
    model: Path
    weight: int = 100
    code: Path = paths.SERVING
    request_timeout_ms: int = 180_000
    max_concurrent_requests_per_instance: int = 32

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            rule = "3 to 32 letters, digits and dashes, a letter first"
            raise EndpointError(f"a deployment cannot be called {self.name!r}: {rule}")
        for field, low, high in (
            ("weight", 0, 100),
            ("request_timeout_ms", 1, 180_000),
            ("max_concurrent_requests_per_instance", 1, 1000),
        ):
            if not low <= getattr(self, field) <= high:
                value = getattr(self, field)
                raise EndpointError(f"{self.name}: {field} is {value}, not {low} to {high}")

    @property
    def max_in_flight(self) -> int:
        """More at once are refused ("Troubleshoot online endpoints": too many pending requests)."""
        return 2 * self.max_concurrent_requests_per_instance


class ContainerError(Exception):
    """The container cannot answer: 503 while it has no model, 502 when it ended at work."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Message(NamedTuple):
    """What the scoring code says of a request: first a status; a whole answer is at its end with it."""

    status: int = 200
    text: str = ""
    end: bool = False


class Call:
    """One request in a container. Used in one event loop; `close` it whatever happens."""

    def __init__(self, container: Container, number: int, timeout: float):
        self._container = container
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._timer = self._loop.call_later(timeout, self._messages.put_nowait, TimeoutError())

    async def next(self) -> Message:
        """The next message. Raises TimeoutError when the call's time is up, and whatever was put."""
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def put(self, message: Message | Exception) -> None:
        """Hand over a message, or an error to raise, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    def close(self) -> None:
        """Nobody waits for it any more."""
        self._timer.cancel()
        self._container.forget(self._number)


class Process(Protocol):
    """As much of `subprocess.Popen` as a container needs."""

    stdin: Any
    stdout: Any

    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Container:
    """A deployment's scoring code in a process of its own, started again whenever it ends.

    Attributes:
        model: what the model calls itself; empty until it is loaded.
        ready: whether it can answer.
        in_flight: requests that the front end has let in; the front end counts.
    """

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        self.model = ""
        self.ready = False
        self.in_flight = 0
        self._process: Process | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of the six above
        self._failure = ""
        self._settled = threading.Event()  # the first load ended, well or badly
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=deployment.name, daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._keeper.start()

    def wait(self) -> None:
        """Until the model is loaded. Raises EndpointError: it cannot be."""
        self._settled.wait()
        if not self.model:
            raise EndpointError(self._failure)

    def ask(self, body: bytes, timeout: float) -> Call:
        """Send a request, which has so many seconds. Raises ContainerError: there is no model now."""
        with self._lock:
            if not self.ready:
                raise ContainerError(503, "The model is being loaded.")
            number = next(self._numbers)
            call = self._calls[number] = Call(self, number, timeout)
            self._post({"id": number, "body": body.decode("latin-1")})
        return call

    def forget(self, number: int) -> None:
        """Drop a call; the scoring code is told unless it has ended."""
        with self._lock:
            if self._calls.pop(number, None):
                self._post({"id": number})

    def close(self) -> None:
        """End the process for good, and what is in it."""
        self._closing.set()
        with self._lock:
            process = self._process
            self._outbox.put(None)
        if self._keeper.ident:
            self._keeper.join(END_S)
            if process and self._keeper.is_alive():
                process.kill()
            self._keeper.join()

    def _post(self, message: Any) -> None:
        # By way of a thread: a process that reads no more must not stop the front end.
        self._outbox.put(json.dumps(message).encode() + b"\n")

    # -- the process -------------------------------------------------------------------------------

    def spawn(self) -> Process:
        """Start the process. Tests put a thread in its place."""
        deployment = self.deployment
        threads = deployment.max_concurrent_requests_per_instance
        command = [sys.executable, "-m", "phi3_ops.endpoint.worker"]
        command += [str(deployment.code), str(deployment.model), str(threads)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is the endpoint's matter
        )

    def _keep(self) -> None:
        wait, most = LOAD_AGAIN_S
        while not self._closing.is_set():
            loaded, status = self._run_once()
            first = not self._settled.is_set()
            self._settled.set()
            if self._closing.is_set() or (first and not loaded):
                return
            what = "its process ended" if loaded else self._failure
            log.error("deployment %s: %s (%s): starting it", self.deployment.name, what, status)
            self._closing.wait(0 if loaded else wait)
            wait = LOAD_AGAIN_S[0] if loaded else min(2 * wait, most)

    def _run_once(self) -> tuple[bool, str]:
        """Run a process to its end: whether it ever was ready, and how it ended."""
        self._failure = "its process ended while it was loading the model"
        try:
            process = self.spawn()
        except OSError as error:  # no memory, no process
            self._failure = str(error)
            return False, "not started"
        with self._lock:
            self._process, self._outbox = process, queue.SimpleQueue()
        if self._closing.is_set():  # `close` may have come before there was a process to end
            self._outbox.put(None)
        writer = threading.Thread(target=_write, args=(self._outbox, process.stdin), daemon=True)
        writer.start()
        loaded = False
        for line in process.stdout:
            if line.endswith(b"\n"):  # the last one may be cut off
                loaded |= self._take(json.loads(line))
        process.stdout.close()
        with self._lock:
            self.ready = False
            calls, self._calls = list(self._calls.values()), {}
            self._outbox.put(None)
        for call in calls:
            call.put(ContainerError(502, "The scoring code's process ended."))
        status = _end(process)
        writer.join()
        return loaded, status

    def _take(self, message: Any) -> bool:
        """Take a message of the process; whether it says that the model is ready."""
        if "id" not in message:
            self._failure = message.get("failed", "")
            self.model = message.get("ready", self.model)
            self.ready = "ready" in message
            if self.ready:
                self._settled.set()
            return self.ready
        whole = "status" in message and "text" in message
        said = Message(
            message.get("status", 200), message.get("text", ""), whole or "end" in message
        )
        with self._lock:
            number = message["id"]
            call = self._calls.pop(number, None) if said.end else self._calls.get(number)
        if call:
            call.put(said)
        return False


def _end(process: Process) -> str:
    """Wait for a process that has closed its output; how it ended."""
    try:
        status = process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def _write(outbox: queue.SimpleQueue[bytes | None], pipe: Any) -> None:
    """Send what is in the outbox; None is the end, at which the process ends as well."""
    with suppress(OSError), pipe:  # it has ended, which is seen elsewhere
        while (line := outbox.get()) is not None:
            pipe.write(line)
            pipe.flush()
