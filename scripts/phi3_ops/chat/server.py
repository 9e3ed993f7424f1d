"""The uvicorn server of `phi3 serve`, and how it ends while an endpoint does not answer."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from ..pf import App

GRACE_S = 2  # seconds for open answers to end after the first signal


def serve_app(
    app: App, sock: socket.socket, ready: Callable[[], None], abandon: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM. Open answers then have `GRACE_S` seconds to end.

    Args:
        app: the app to serve.
        sock: a bound socket.
        ready: called when the server accepts requests.
        abandon: called if a thread still waits for an endpoint after that time. The process is then
            ended, because Python would wait for the thread.
    """
    import uvicorn

    from ..network import BoundedProtocol

    def give_up() -> None:
        abandon()
        os._exit(0)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready()

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:
                self.force_exit = True
                return
            self.should_exit = True
            timer = threading.Timer(GRACE_S + 2, give_up)
            timer.daemon = True
            timer.start()

    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    Server(config).run(sockets=[sock])
