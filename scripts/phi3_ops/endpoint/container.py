"""A deployment of the local endpoint: its settings, and the process in which its model is loaded.

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
from ..installation import install_command

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{2,31}")
RELOAD_WAIT_S = (
    1.0,
    30.0,
)  # first and longest wait after a failed load; the wait doubles each time
EXIT_TIMEOUT_S = 5.0  # for the process to end by itself
# Brings what score.py and the front end import.
INSTALL = install_command("serve")
log = logging.getLogger("phi3.endpoint")


class EndpointError(OpsError):
    """The endpoint cannot be started; the message gives the reason in one line."""


@dataclass(frozen=True)
class Deployment:
    """One model behind the endpoint.

    Attributes:
        name: 3 to 32 letters, digits and dashes.
        model: Hugging Face or MLflow model folder.
        weight: share of the traffic in percent.
        code: folder with score.py.
        request_timeout_ms: time limit for an answer, in milliseconds.
        max_concurrent_requests_per_instance: number of requests that are processed at once; as many
            again may wait. There is one instance.

    Raises:
        EndpointError: Azure would refuse a value.
    """

    name: str
    model: Path
    weight: int = 100
    code: Path = paths.SERVING
    request_timeout_ms: int = 180_000
    max_concurrent_requests_per_instance: int = 32

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            fix = "Use 3 to 32 letters, digits and dashes, starting with a letter."
            raise EndpointError(f"{self.name!r} is not a valid name of a deployment", fix)
        for field, low, high in (
            ("weight", 0, 100),
            ("request_timeout_ms", 1, 180_000),
            ("max_concurrent_requests_per_instance", 1, 1000),
        ):
            value = getattr(self, field)
            if not low <= value <= high:
                what = f"deployment {self.name}: {field} must be {low} to {high}, not {value}"
                raise EndpointError(what)

    @property
    def max_in_flight(self) -> int:
        """Number of requests at once; more are refused.

        Source: "Troubleshoot online endpoints", too many pending requests.
        """
        return 2 * self.max_concurrent_requests_per_instance


class ContainerError(Exception):
    """The container cannot answer: 503 while it has no model, 502 if its process ended."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Message(NamedTuple):
    """A message of the scoring script about a request.

    Attributes:
        status: status of the answer.
        text: the answer, or a piece of a stream.
        end: whether it is the last message about the request.
    """

    status: int = 200
    text: str = ""
    end: bool = False


class Call:
    """One request in a container. Use it in one event loop, and always `close` it."""

    def __init__(self, container: Container, number: int, timeout: float):
        self._container = container
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._timer = self._loop.call_later(timeout, self._messages.put_nowait, TimeoutError())

    async def next(self) -> Message:
        """Return the next message.

        Raises:
            TimeoutError: the time limit of the call has passed.
            Exception: the error that was `put`.
        """
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def put(self, message: Message | Exception) -> None:
        """Pass a message, or an error that `next` raises, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    def close(self) -> None:
        """Cancel the call, unless it has ended."""
        self._timer.cancel()
        self._container.forget(self._number)


class Process(Protocol):
    """The part of `subprocess.Popen` that a container uses."""

    stdin: Any
    stdout: Any

    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Container:
    """A deployment's scoring script in its own process, which is restarted whenever it ends.

    Attributes:
        deployment: the settings.
        model: name that the model reports; empty until it is loaded.
        runtime: what runs the model, for people; empty if the scoring script does not report it.
        ready: whether the process can answer.
        in_flight: number of admitted requests; the front end counts them.
    """

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        self.model = ""
        self.runtime = ""
        self.ready = False
        self.in_flight = 0
        self._process: Process | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count()
        self._lock = (
            threading.Lock()
        )  # for `ready`, the process, the outbox, the calls and the numbers
        self._failure = ""
        self._first_load_ended = threading.Event()  # with success or with an error
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=deployment.name, daemon=True)

    def start(self) -> None:
        """Start to load the model."""
        self._keeper.start()

    def wait(self) -> None:
        """Wait until the model is loaded.

        Raises:
            EndpointError: it cannot be loaded.
        """
        self._first_load_ended.wait()
        if not self.model:
            raise EndpointError(self._failure)

    def ask(self, body: bytes, timeout: float) -> Call:
        """Send a request.

        Args:
            body: the bytes of the request.
            timeout: time limit for the complete answer, in seconds.

        Raises:
            ContainerError: the model is not loaded.
        """
        with self._lock:
            if not self.ready:
                raise ContainerError(503, "The model is being loaded.")
            number = next(self._numbers)
            call = self._calls[number] = Call(self, number, timeout)
            self._post({"id": number, "body": body.decode("latin-1")})
        return call

    def forget(self, number: int) -> None:
        """Drop a call, and cancel it in the process unless it has ended."""
        with self._lock:
            if self._calls.pop(number, None):
                self._post({"id": number})

    def close(self) -> None:
        """End the process and everything in it, and do not restart it."""
        self._closing.set()
        with self._lock:
            process = self._process
            self._outbox.put(None)
        if self._keeper.ident:
            self._keeper.join(EXIT_TIMEOUT_S)
            if process and self._keeper.is_alive():
                process.kill()
            self._keeper.join()

    def _post(self, message: Any) -> None:
        # A thread writes it, because a process that does not read must not block the front end.
        self._outbox.put(json.dumps(message).encode() + b"\n")

    # -- the process -------------------------------------------------------------------------------

    def spawn(self) -> Process:
        """Start the process. Tests replace it with a thread."""
        deployment = self.deployment
        threads = deployment.max_concurrent_requests_per_instance
        command = [sys.executable, "-m", "phi3_ops.endpoint.worker"]
        command += [str(deployment.code), str(deployment.model), str(threads)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that only the endpoint receives Ctrl-C
        )

    def _keep(self) -> None:
        wait, longest_wait = RELOAD_WAIT_S
        while not self._closing.is_set():
            loaded, status = self._run_once()
            first = not self._first_load_ended.is_set()
            self._first_load_ended.set()
            if self._closing.is_set() or (first and not loaded):
                return
            reason = "its process ended" if loaded else self._failure
            log.error("deployment %s: %s (%s): restarting", self.deployment.name, reason, status)
            self._closing.wait(0 if loaded else wait)
            wait = RELOAD_WAIT_S[0] if loaded else min(2 * wait, longest_wait)

    def _run_once(self) -> tuple[bool, str]:
        """Run a process until it ends; return whether it was ever ready, and how it ended."""
        self._failure = "its process ended while it was loading the model"
        try:
            process = self.spawn()
        except OSError as error:  # such as too little memory
            self._failure = str(error)
            return False, "not started"
        with self._lock:
            self._process, self._outbox = process, queue.SimpleQueue()
        if self._closing.is_set():  # `close` may have been called before the process existed
            self._outbox.put(None)
        writer = threading.Thread(target=_write, args=(self._outbox, process.stdin), daemon=True)
        writer.start()
        loaded = False
        for line in process.stdout:
            if line.endswith(b"\n"):  # the last line may be incomplete
                loaded |= self._take(json.loads(line))
        process.stdout.close()
        with self._lock:
            self.ready = False
            calls, self._calls = list(self._calls.values()), {}
            self._outbox.put(None)
        for call in calls:
            call.put(ContainerError(502, "The scoring script's process ended."))
        status = _end(process)
        writer.join()
        return loaded, status

    def _take(self, message: Any) -> bool:
        """Process a message; return whether it reports that the model is loaded."""
        if "id" not in message:
            self._failure = message.get("failed", "")
            self.model = message.get("ready", self.model)
            self.runtime = message.get("runtime", self.runtime)
            self.ready = "ready" in message
            if self.ready:
                self._first_load_ended.set()
            return self.ready
        is_complete = "status" in message and "text" in message
        is_last = is_complete or "end" in message
        with self._lock:
            number = message["id"]
            call = self._calls.pop(number, None) if is_last else self._calls.get(number)
        if call:
            call.put(Message(message.get("status", 200), message.get("text", ""), is_last))
        return False


def _end(process: Process) -> str:
    """Wait for a process that has closed its output; return how it ended."""
    try:
        status = process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def _write(outbox: queue.SimpleQueue[bytes | None], pipe: Any) -> None:
    """Send the lines of the outbox to the process. None closes the pipe, which ends the process."""
    with suppress(OSError), pipe:  # the process has ended, which `_run_once` handles
        while (line := outbox.get()) is not None:
            pipe.write(line)
            pipe.flush()
