"""The uvicorn server of the endpoint: when it is ready, and how signals stop it.

This module needs uvicorn; `server` imports it when the endpoint starts.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn

from ..network import BoundedProtocol
from .front import FrontError

KEEP_ALIVE_S = 75  # longer than a client's pool keeps an idle connection
GRACE_S = 30  # seconds for requests in flight after the first signal


class EndpointProtocol(BoundedProtocol):
    """The bounds of connections, with errors in the endpoint's form."""

    def error_body(self, status: HTTPStatus, message: str) -> str:
        return json.dumps(FrontError(status, status.phrase.replace(" ", ""), message).body)


def run_server(
    app: Any,
    sock: socket.socket,
    url: str,
    ready: Callable[[str], None],
    *,
    max_in_flight: int,
) -> None:
    """Serve until SIGTERM or SIGINT. A second signal ends requests in flight at once.

    Args:
        app: the ASGI application.
        sock: a bound socket.
        url: the URL that `ready` gets.
        ready: called in a thread when the server answers. If it raises, the server stops, and the
            exception is raised here.
        max_in_flight: number of requests that are admitted at once. There may be twice as many
            connections, so that further requests are answered with 429 and not with 503.
    """
    connections = max(EndpointProtocol.max_connections, 2 * max_in_flight)
    protocol = type("Protocol", (EndpointProtocol,), {"max_connections": connections})
    config = uvicorn.Config(
        app,
        http=protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config, url, ready)
    server.run(sockets=[sock])
    if server.failure is not None:
        raise server.failure


class _Server(uvicorn.Server):
    """uvicorn's server, which calls `ready` and stops at once on a second signal."""

    def __init__(self, config: uvicorn.Config, url: str, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.failure: BaseException | None = None
        self._url, self._ready = url, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # In a thread, because it may send the endpoint a first request.
        self._ready_task = asyncio.create_task(asyncio.to_thread(self._ready, self._url))
        self._ready_task.add_done_callback(self._after_ready)

    def _after_ready(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failure = error
            self.should_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        # uvicorn itself accepts only SIGINT as a second signal, and still waits for connections then.
        if self.should_exit:
            self.force_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            try:
                yield
            finally:
                # uvicorn raises the signals again, which would kill a process that stopped cleanly.
                self._captured_signals.clear()
