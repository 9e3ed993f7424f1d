"""The real local endpoint on a free loopback port, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "a-key-for-tests"
HANG_S = 30  # a limit for what must not hang, never a measurement


@contextmanager
def running(model_dir: Path, **options: Any) -> Iterator[str]:
    """Serve model_dir with `create_app(**options)`; gives the base URL."""
    import uvicorn

    from phi3_ops.endpoint import _bind, create_app

    app = create_app(model_dir, key=KEY, **options)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started.set()

    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = Server(config)
    with _bind("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        assert started.wait(HANG_S), "the endpoint did not start"
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(HANG_S)
