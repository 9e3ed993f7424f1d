"""Prompt flow's serving app for a flow, with threads that are shared by all requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .client import prepare
from .expectations import TOOL_THREADS, is_supported
from .middleware import use_inline_middleware
from .replacements import shared_line_pool


def create_flow_app(folder: Path) -> Any:
    """Return Prompt flow's FastAPI app for the flow in a folder.

    Its connections come from the local store. Exceptions of Prompt flow, and of the flow's own code,
    leave this function unchanged.
    """
    prepare()
    from promptflow.core._serving.app import create_app

    os.environ["PROMPTFLOW_PROJECT_PATH"] = str(folder)
    app = create_app(engine="fastapi", connection_provider="local")
    use_inline_middleware(app)
    return app


def wrap_line_execution(app: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the coroutine function with which a serving app runs one request by a wrapped one.

    Args:
        app: the app of `create_flow_app`.
        wrap: takes the executor's `exec_line_async` and returns what replaces it.
    """
    executor = app.flow_invoker.executor
    executor.exec_line_async = wrap(executor.exec_line_async)


def close_tool_stream(stream: Any) -> None:
    """Close a tool's generator, which Prompt flow wraps in proxies that have no `close`."""
    while hasattr(stream, "_iterator"):
        stream = stream._iterator
    if hasattr(stream, "close"):
        stream.close()


@contextmanager
def shared_tool_threads(count: int) -> Iterator[None]:
    """Run the sync tools of all requests to Prompt flow's serving app on the same threads.

    Prompt flow starts new threads for each request.

    Args:
        count: number of requests whose tools run at once.
    """
    if not is_supported(TOOL_THREADS):
        yield
        return
    from promptflow.executor import _async_nodes_scheduler as scheduler

    threads = ThreadPoolExecutor(count, thread_name_prefix="tool")
    scheduler.ThreadPoolExecutor = shared_line_pool(threads)
    try:
        yield
    finally:
        scheduler.ThreadPoolExecutor = ThreadPoolExecutor
        threads.shutdown(wait=False)
