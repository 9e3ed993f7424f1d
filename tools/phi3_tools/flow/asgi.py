"""A flow as an ASGI app with the routes, bodies and statuses of `pf flow serve`.

`/score` answers with JSON, or with server-sent events if the client accepts `text/event-stream` and the
flow streams. `/health`, `/version`, `/swagger.json` and `/feedback` are as in Prompt flow. When a client
leaves, its line is stopped and the connection to the endpoint is closed. Put `CheckedRequests` in front,
which limits the size of requests.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..serving import App, ClientLeft, RefusedRequest, Scope, read_body, unless_left
from .engine import Engine
from .errors import LineError
from .results import LineResult
from .streams import AsyncLineStream
from .swagger import swagger

EVENT_STREAM = "text/event-stream"
JSON_TYPES = frozenset({"application/json", "application/*", "*/*"})


class ScoreApp:
    """An ASGI app that serves one flow.

    Args:
        engine: the engine of the flow.
        version: the version that `/health` reports.
    """

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine, self._version = engine, version
        self._swagger = swagger(engine.flow)
        self._routes: dict[tuple[str, str], App] = {
            ("POST", "/score"): self._score,
            ("POST", "/feedback"): self._feedback,
            ("GET", "/health"): self._health,
            ("GET", "/version"): self._build,
            ("GET", "/swagger.json"): self._openapi,
        }

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        handler = self._routes.get((scope["method"], scope["path"]))
        try:
            if handler is None:
                raise _not_found(scope, {path for _, path in self._routes})
            await handler(scope, receive, send)
        except RefusedRequest as refused:
            await refused.send(send)
        except ClientLeft:
            return

    async def _health(self, scope: Scope, receive: Any, send: Any) -> None:
        await _send_json(send, {"status": "Healthy", "version": self._version})

    async def _build(self, scope: Scope, receive: Any, send: Any) -> None:
        await _send_json(send, build_info(self._version))

    async def _openapi(self, scope: Scope, receive: Any, send: Any) -> None:
        await _send_json(send, self._swagger)

    async def _feedback(self, scope: Scope, receive: Any, send: Any) -> None:
        if await read_body(scope, receive) is None:
            return
        await _send_json(send, {"status": "Feedback received."})

    async def _score(self, scope: Scope, receive: Any, send: Any) -> None:
        body = await read_body(scope, receive)
        if body is None:
            return
        inputs = _inputs(body, self._engine)
        accepted = _accepted_types(scope)
        if EVENT_STREAM in accepted:
            stream = await unless_left(self._engine.astream(inputs), receive)
            async with stream:
                _require_success(stream.result)
                if stream.name is not None:
                    await _send_events(stream, receive, send)
                    return
            result = stream.result
        else:
            result = await unless_left(self._engine.arun(inputs), receive)
            _require_success(result)
        if not accepted & JSON_TYPES:
            raise _not_acceptable(accepted, "application/json")
        await _send_json(send, result.outputs)


def build_info(version: str) -> dict[str, str]:
    """Return the answer of `/version`, which Prompt flow takes from the variable `BUILD_INFO`.

    Args:
        version: the version, if the variable has no `build_number`.
    """
    build = os.environ.get("BUILD_INFO", "")
    with suppress(ValueError, LookupError, TypeError):
        version = json.loads(build)["build_number"]
    return {"status": "Healthy", "build_info": build, "version": version}


# -- requests --------------------------------------------------------------------------------------


def _inputs(body: bytes, engine: Engine) -> dict[str, Any]:
    """Return the inputs in the body of a request to `/score`. Other text than JSON is the only input."""
    definitions = engine.flow.inputs
    if not definitions:
        return {}
    try:
        inputs = json.loads(body)
    except ValueError:
        if len(definitions) > 1:
            message = (
                "the body is not JSON, but the flow has more than one input; send a JSON object"
            )
            raise _refusal(message) from None
        inputs = {next(iter(definitions)): body.decode("utf-8", "replace")}
    if not isinstance(inputs, dict):
        raise _refusal("the body is not a JSON object")
    required = [name for name, item in definitions.items() if item.default is None]
    if missing := [name for name in required if name not in inputs]:
        message = f"Required input fields {missing} are missing in request data {inputs!r}"
        raise _refusal(message)
    return inputs


def _accepted_types(scope: Scope) -> set[str]:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    types = {part.strip() for value in values for part in value.split(",") if part.strip()}
    return types or {"*/*"}


# -- answers ---------------------------------------------------------------------------------------


def _require_success(result: LineResult) -> None:
    if (error := result.error) is not None:
        code = "UserError" if error.is_user_error else "SystemError"
        raise _refusal(error.message, status=400 if error.is_user_error else 500, code=code)


def _refusal(message: str, *, status: int = 400, code: str = "UserError") -> RefusedRequest:
    return RefusedRequest(status, message, code=code)


def _not_found(scope: Scope, paths: set[str]) -> RefusedRequest:
    if scope["path"] in paths:
        return RefusedRequest(405, f"{scope['path']} does not accept {scope['method']}")
    return RefusedRequest(404, f"the routes are {', '.join(sorted(paths))}")


def _not_acceptable(accepted: set[str], supported: str) -> RefusedRequest:
    message = (
        f"Media type {','.join(sorted(accepted))} in Accept header is not acceptable. "
        f"Supported media type(s) - {supported}"
    )
    return RefusedRequest(406, message)


async def _send_json(send: Any, value: Any) -> None:
    try:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise _refusal(str(error), status=500, code="SystemError") from error
    content = body.encode("utf-8", "surrogatepass")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _send_events(stream: AsyncLineStream, receive: Any, send: Any) -> None:
    """Send the outputs that are complete, then each piece. A slow client does not slow the endpoint."""
    headers = [(b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if complete := stream.result.outputs:
        await _send_event(send, complete)
    pieces: asyncio.Queue[str | LineError | None] = asyncio.Queue()
    reading = asyncio.ensure_future(_read(stream, pieces))
    try:
        await unless_left(_send_pieces(send, str(stream.name), pieces), receive)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    await send({"type": "http.response.body", "body": b""})


async def _read(stream: AsyncLineStream, pieces: asyncio.Queue[str | LineError | None]) -> None:
    try:
        await stream.read(pieces.put_nowait)
    except LineError as error:
        pieces.put_nowait(error)
    else:
        pieces.put_nowait(None)


async def _send_pieces(send: Any, name: str, pieces: asyncio.Queue[str | LineError | None]) -> None:
    while (piece := await pieces.get()) is not None:
        if isinstance(piece, LineError):
            raise piece  # the status has been sent: the answer breaks off
        await _send_event(send, {name: piece})


async def _send_event(send: Any, data: Mapping[str, Any]) -> None:
    body = f"data: {json.dumps(data)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
