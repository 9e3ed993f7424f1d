"""The local endpoint: Azure ML's documented front end before the deployments' own scoring code.

This process is the front end (`endpoint_front`); each deployment's model lives in a process of its own
(`endpoint_container`, `endpoint.worker`), as it lives in a container on Azure.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..network import base_url, bind_socket, is_loopback
from .container import Container, Deployment, EndpointError
from .worker import INSTALL

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .faults import Rule

KEEP_ALIVE_S = 75  # longer than a client's pool keeps an idle connection
GRACE_S = 30  # what is in flight when the process is told to stop


def create_app(
    containers: Sequence[Container], *, key: str, faults: Sequence[Rule] | None = None
) -> FastAPI:
    """The endpoint as an ASGI application before containers, which the caller starts and closes.

    Args:
        containers: the deployments.
        key: what clients send as `Bearer`.
        faults: rules by which requests fail on purpose (see `faults`); None switches the fault
            header off too.

    Raises:
        EndpointError: an empty key, or weights that sum to neither 0 nor 100.
    """
    _check_key(key)
    check_traffic([container.deployment for container in containers])
    try:
        from fastapi import FastAPI
        from starlette.routing import Route
    except ImportError as error:
        raise EndpointError(f"fastapi is missing: {INSTALL}") from error
    from .front import Front, FrontError, RequestLog, refused

    class App(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            # uvicorn's own send is a method of what holds the connection; faults break it.
            scope["phi3.transport"] = getattr(getattr(send, "__self__", None), "transport", None)
            await super().__call__(scope, receive, send)

    front = Front(containers, key)
    app = App(
        routes=[
            Route("/", front.health, methods=["GET"]),
            Route("/score", front.score, methods=["POST"]),
            Route("/v1/chat/completions", front.chat, methods=["POST"]),
            Route("/v1/models", front.models, methods=["GET"]),
            Route("/swagger.json", front.document, methods=["GET"]),  # where Azure has it
            Route("/openapi.json", front.document, methods=["GET"]),
        ],
        exception_handlers={FrontError: refused},
        openapi_url=None,  # FastAPI's own would not know what the scoring code takes
    )
    if faults is not None:
        from .faults import FaultMiddleware

        app.add_middleware(FaultMiddleware, rules=faults)
    app.add_middleware(RequestLog)
    return app


def check_traffic(deployments: Sequence[Deployment]) -> None:
    """Raises EndpointError: no deployment, one name twice, or weights that Azure would not take."""
    names = [deployment.name for deployment in deployments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise EndpointError(f"there are two deployments called {twice}")
    total = sum(deployment.weight for deployment in deployments)
    if not names or total not in (0, 100):
        raise EndpointError(f"the deployments' traffic sums to {total}, not to 100 (or 0)")


def serve_models(
    deployments: Sequence[Deployment],
    *,
    host: str = "127.0.0.1",
    port: int = 8710,
    key: str,
    faults: Sequence[Rule] | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models until SIGTERM or SIGINT, finish what is in flight, and return.

    After the first signal no connection is accepted, and what is in flight has `GRACE_S` seconds; a
    second signal ends it at once.

    Args:
        deployments: the models and their traffic.
        host: address to listen on; one that can be reached from outside needs a key.
        port: 0 picks a free one.
        key: what clients send as `Bearer`.
        faults: as in `create_app`.
        ready: called once, in a thread of its own, with the endpoint's base URL
            (`http://127.0.0.1:8710`) as soon as it answers; what it raises ends the endpoint and is
            raised here.

    Raises:
        EndpointError: a key, traffic, address, port or model that will not do.
    """
    _check_key(key, host)
    check_traffic(deployments)
    sock = bind_socket(host, port)
    containers = [Container(deployment) for deployment in deployments]
    try:
        app = create_app(containers, key=key, faults=faults)
        for container in containers:
            container.start()
        for container in containers:
            container.wait()
        _run(app, sock, base_url(host, sock), ready)
    finally:
        for container in containers:
            container.close()
        sock.close()


def _run(app: FastAPI, sock: socket.socket, url: str, ready: Callable[[str], None] | None) -> None:
    import uvicorn

    failures: list[BaseException] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if ready is not None:
                # In a thread: it may well send the endpoint a first request.
                self.ready = asyncio.create_task(asyncio.to_thread(ready, url))
                self.ready.add_done_callback(self.after_ready)

        def after_ready(self, task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                failures.append(error)
                self.should_exit = True

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:  # uvicorn's own second signal has to be SIGINT, and waits on
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
                    # uvicorn would raise them again, which kills a process that stopped cleanly.
                    self._captured_signals.clear()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    Server(config).run(sockets=[sock])
    if failures:
        raise failures[0]


def _check_key(key: str, host: str = "127.0.0.1") -> None:
    if key and key.strip():
        return
    if is_loopback(host):
        raise EndpointError("the key is empty: give the endpoint one")
    raise EndpointError(f"{host} can be reached from outside: it is not served without a key")
