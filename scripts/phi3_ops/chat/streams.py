"""Streams of a served flow that end when their client leaves, and the tokens of a streamed answer.

promptflow's own serving app waits on the event loop for the endpoint's next piece after a client has
left. Until that piece comes, it answers nobody else, and the call to the endpoint continues.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from phi3_tools import Reply
from phi3_tools.client import CallObserver, observe_calls

from ..pf import App, Scope, close_tool_stream

USAGE_HEADER = b"x-phi3-usage"


class DetachedStream(AsyncIterator[Any]):
    """A stream that a thread reads as fast as it comes, until the stream is closed.

    A slow client therefore occupies neither a thread nor a call to the endpoint: only the answer waits.

    Args:
        pieces: the stream of a tool; the thread iterates and closes it.
    """

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces = pieces
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # The context contains the request, to which the tokens of the call are added.
        self._loop.run_in_executor(None, contextvars.copy_context().run, self._read)

    def close(self) -> None:
        """End the call to the endpoint as soon as its next piece arrives."""
        self._closed = True

    async def __anext__(self) -> Any:
        piece = await self._received.get()
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
            close_tool_stream(self._pieces)
            self._put(end)

    def _put(self, piece: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self._received.put_nowait, piece)


@dataclass
class FlowRequest:
    """The state of one request to a flow.

    Attributes:
        streams: the streams that the request reads.
        usage: `prompt_tokens` and `completion_tokens` of the request's calls.
    """

    streams: list[DetachedStream] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)

    def add_usage(self, reply: Reply) -> None:
        """Add the tokens of a call, if the endpoint reported them."""
        if reply.usage is None:
            return
        for name in ("prompt_tokens", "completion_tokens"):
            self.usage[name] = self.usage.get(name, 0) + getattr(reply.usage, name)


_request: contextvars.ContextVar[FlowRequest | None] = contextvars.ContextVar(
    "request", default=None
)


def with_detached_streams(exec_line_async: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap promptflow's function that runs one request, so that its streams can be closed.

    Args:
        exec_line_async: the executor's coroutine function; see `wrap_line_execution`.
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
    """promptflow's app below a path; it closes the streams of a request when the request ends.

    For a client that sends the header `x-phi3-usage`, a streamed answer ends with an event `usage`. Other
    clients get exactly promptflow's events.

    Args:
        app: promptflow's app.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        # promptflow compares the path with `/score`, without the path that the app is mounted at.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        scope = {**scope, "path": path, "root_path": ""}
        request = FlowRequest()
        _request.set(request)
        if USAGE_HEADER in dict(scope["headers"]):
            send = _with_usage_event(send, request)
        try:
            await self._app(scope, receive, send)
        finally:
            for stream in request.streams:
                stream.close()


def _with_usage_event(send: Any, request: FlowRequest) -> Any:
    is_stream = False

    async def send_and_count(message: Any) -> None:
        nonlocal is_stream
        if message["type"] == "http.response.start":
            content_type = dict(message["headers"]).get(b"content-type", b"")
            is_stream = content_type.startswith(b"text/event-stream")
        elif is_stream and not message.get("more_body") and request.usage:
            event = f"event: usage\ndata: {json.dumps(request.usage)}\n\n".encode()
            message = {**message, "body": message.get("body", b"") + event}
        await send(message)

    return send_and_count


class _UsageObserver(CallObserver):
    """Adds the tokens of each call to the request in whose context the call runs."""

    def on_answered(self, reply: Reply) -> None:
        request = _request.get()
        if request is not None:
            request.add_usage(reply)


def counting_tokens() -> AbstractContextManager[None]:
    """Count the tokens of each request's calls inside the block; used for the life of the server."""
    return observe_calls(_UsageObserver())
