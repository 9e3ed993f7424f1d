"""A flow behind a page that streams: promptflow's own serving app, with another page in front of it.

`/score`, `/health`, `/version` and `/swagger.json` are promptflow's, as under `pf flow serve`. Added are
the page, the answers' Markdown as safe HTML, the tokens of an answer that streams, and a second
connection to compare with.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from phi3_tools.client import ANSWERED_LOG

from ..errors import OpsError, first_line
from ..flows import NEVER_UPLOADED, FlowDefinition
from ..pf import (
    App,
    Scope,
    listening,
    load_connection,
    pf_client,
    shared_tool_threads,
    use_inline_middleware,
)
from .guard import Guard

PAGE = Path(__file__).resolve().parent / "page"
# A stream holds a thread until it has come; asyncio's own pool has cores + 4.
THREADS = 64
MOST_MARKDOWN = 256 * 1024  # characters of one answer that are rendered
GRACE_S = 2  # that open answers have to end once the server is told to


@dataclass(frozen=True)
class Side:
    """A connection that the page can ask: its name, and where its app is mounted."""

    connection: str
    path: str


def make_chat_app(
    flow: FlowDefinition, connections: Sequence[str], folder: Path, *, token: str | None
) -> App:
    """The app: the page at `/`, promptflow's app for the first connection below it.

    Args:
        flow: what to serve; the page needs the input `question`, and sends `chat_history`.
        connections: names; a second one is asked side by side with the first.
        folder: gets a copy of the flow for each connection, in which it is named.
        token: password that every request must carry, or None.

    Raises:
        OpsError: the flow is not one that can be chatted with, a connection is not there, or promptflow
            refuses the flow.
    """
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    if "question" not in flow.inputs:
        fix = f"Serve it with `pf flow serve --source {flow.folder} --engine fastapi`."
        raise OpsError(f"{flow.folder} is no chat flow: it has no input `question`", fix)
    for name in connections:
        flow.connections(name)
        if load_connection(name) is None:
            raise OpsError(f"there is no connection {name!r}", "Write it with `phi3 connect`.")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        with shared_tool_threads(THREADS):
            yield

    sides = [Side(name, f"/side{n}/" if n else "/") for n, name in enumerate(connections)]
    mounts = [Mount("/static", StaticFiles(directory=PAGE))]
    # The first one is mounted at the root, and so last: it takes whatever is left.
    for number, side in reversed(list(enumerate(sides))):
        stock = _flow_app(flow, side.connection, folder / str(number))
        mounts.append(Mount(side.path.rstrip("/"), FlowApp(stock)))
    app = Starlette(routes=[*_page_routes(flow, sides), *mounts], lifespan=lifespan)
    return Guard(app, token)


def _flow_app(flow: FlowDefinition, connection: str, folder: Path) -> App:
    """promptflow's own app, for a copy of the flow in which every node takes this connection."""
    shutil.copytree(flow.folder, folder, ignore=shutil.ignore_patterns(*NEVER_UPLOADED))
    content = yaml.safe_load((folder / "flow.dag.yaml").read_text(encoding="utf-8"))
    for node in content["nodes"]:
        if "connection" in (node.get("inputs") or {}):
            node["inputs"]["connection"] = connection
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "flow.dag.yaml").write_text(text, encoding="utf-8")
    pf_client()
    from promptflow.core._serving.app import create_app

    os.environ["PROMPTFLOW_PROJECT_PATH"] = str(folder)
    try:
        app = create_app(engine="fastapi", connection_provider="local")
    except Exception as error:  # whatever promptflow, or the flow's own code, raises
        what = f"{flow.folder} cannot be served: {first_line(error)}"
        raise OpsError(what, f"See `pf flow validate --source {flow.folder}`.") from error
    use_inline_middleware(app)
    executor = app.flow_invoker.executor
    executor.exec_line_async = _streams_that_close(executor.exec_line_async)
    return app  # type: ignore[no-any-return]


def _page_routes(flow: FlowDefinition, sides: Sequence[Side]) -> list[Any]:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request as HttpRequest
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Route

    markdown = _markdown()

    async def page(request: HttpRequest) -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    async def page_json(request: HttpRequest) -> JSONResponse:
        shown = [{"connection": side.connection, "path": side.path} for side in sides]
        named = {"flow": flow.folder.resolve().name, "version": flow.version}
        return JSONResponse({**named, "sides": shown})

    async def rendered(request: HttpRequest) -> JSONResponse:
        text = (await request.body()).decode("utf-8", "replace")[:MOST_MARKDOWN]
        return JSONResponse({"html": await run_in_threadpool(markdown.render, text)})

    return [
        Route("/", page, methods=["GET"]),
        Route("/page.json", page_json, methods=["GET"]),
        Route("/markdown", rendered, methods=["POST"]),
    ]


def _markdown() -> Any:
    """CommonMark and tables, without HTML and images.

    markdown-it-py escapes HTML where `html` is off, and passes no javascript:, vbscript: or data: link.
    """
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


# -- what promptflow's app lacks ---------------------------------------------------------------------


class DetachedStream(AsyncIterator[Any]):
    """A stream, read on one thread as fast as it comes, until it is closed.

    So a slow client holds neither a thread nor a call to the endpoint: what waits for it is one answer.

    Args:
        pieces: the stream of a tool; it is iterated and closed on the thread.
    """

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces = pieces
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # The context carries the request, to which the call's tokens are added.
        self._loop.run_in_executor(None, contextvars.copy_context().run, self._read)

    def close(self) -> None:
        """Have the call to the endpoint ended as soon as the piece that is waited for is here."""
        self._closed = True

    async def __anext__(self) -> Any:
        piece = await self._came.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def _read(self) -> None:
        end: BaseException = StopAsyncIteration()
        try:
            for piece in self._pieces:
                if self._closed:
                    break
                self._put(piece)
        except Exception as error:
            end = error
        finally:
            _close(self._pieces)
            self._put(end)

    def _put(self, piece: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._came.put_nowait, piece)


def _close(pieces: Any) -> None:
    """Close a tool's generator within promptflow's proxies, which keep it alive and cannot close it."""
    while hasattr(pieces, "_iterator"):
        pieces = pieces._iterator
    if hasattr(pieces, "close"):
        pieces.close()


@dataclass
class FlowRequest:
    """What one request to a flow does: the streams it reads, the tokens its calls take."""

    streams: list[DetachedStream] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)


_request: contextvars.ContextVar[FlowRequest | None] = contextvars.ContextVar(
    "request", default=None
)


def _streams_that_close(exec_line_async: Callable[..., Any]) -> Callable[..., Any]:
    """promptflow's executor, with streams that end when nobody reads them any more.

    Its own way is a thread for each stream that it waits for, on the event loop, when the client goes
    away: until the endpoint's next piece comes, nobody else is answered. And the call runs on.
    """

    async def execute(*args: Any, **kw: Any) -> Any:
        result = await exec_line_async(*args, **kw, sync_iterator_to_async=False)
        request = _request.get()
        if request is None:
            return result
        for name, value in result.output.items():
            if isinstance(value, Iterator):
                result.output[name] = DetachedStream(value)
                request.streams.append(result.output[name])
        return result

    return execute


class FlowApp:
    """promptflow's app below a path, with an end to its streams.

    A streamed answer ends with an event `usage` for a client that asks for it by a header; prompt flow's
    carries the output alone, and other clients get exactly that.
    """

    HEADER = b"x-phi3-usage"

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        # promptflow looks for the very path `/score`.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        scope = {**scope, "path": path, "root_path": ""}
        request = FlowRequest()
        _request.set(request)
        if self.HEADER in dict(scope["headers"]):
            send = _usage_last(send, request)
        try:
            await self._app(scope, receive, send)
        finally:
            for stream in request.streams:
                stream.close()


def _usage_last(send: Any, request: FlowRequest) -> Any:
    streams = False

    async def wrapped(message: Any) -> None:
        nonlocal streams
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            streams = kind.startswith(b"text/event-stream")
        elif streams and not message.get("more_body") and request.usage:
            event = f"event: usage\ndata: {json.dumps(request.usage)}\n\n".encode()
            message = {**message, "body": message.get("body", b"") + event}
        await send(message)

    return wrapped


class _Count(logging.Handler):
    """Adds each call's tokens to the request in whose context it ran."""

    def emit(self, record: logging.LogRecord) -> None:
        request = _request.get()
        if request is not None and record.msg == ANSWERED_LOG and isinstance(record.args, tuple):
            for name, tokens in zip(("prompt_tokens", "completion_tokens"), record.args[1:]):
                request.usage[name] = request.usage.get(name, 0) + tokens  # type: ignore[operator]


def counting_tokens() -> AbstractContextManager[None]:
    """Have the client's log heard, which tells the tokens; for the life of the server."""
    return listening(_Count(logging.DEBUG))


# -- the server --------------------------------------------------------------------------------------


def serve_app(
    app: App, sock: socket.socket, ready: Callable[[], None], abandon: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM, which gives open answers `GRACE_S` seconds.

    Args:
        app: what to serve.
        sock: a bound socket.
        ready: called once requests are taken.
        abandon: called where an endpoint hangs, and with it the thread that waits for it; the process
            is ended then, since Python would wait for that thread.
    """
    import uvicorn

    def give_up() -> None:
        abandon()
        os._exit(0)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready()

        def handle_exit(self, sig: int, frame: Any) -> None:
            if not self.should_exit:
                self.should_exit = True
                timer = threading.Timer(GRACE_S + 2, give_up)
                timer.daemon = True
                timer.start()
            else:
                self.force_exit = True

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, timeout_graceful_shutdown=GRACE_S
    )
    Server(config).run(sockets=[sock])
