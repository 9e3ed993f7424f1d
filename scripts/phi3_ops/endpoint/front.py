"""What stands before the deployments: keys, traffic, limits, time, and how errors are passed on.

Sources: "Troubleshoot online endpoints deployment and scoring" (statuses, request ids, how a
container's errors are wrapped), "Safe rollout for online endpoints" (traffic, the deployment header)
and "OpenAI API reference: chat completions" (/v1). It reads the contract by itself and shares nothing
with the client, so that a mistake in one of them shows.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import logging
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from .container import Call, Container, ContainerError

log = logging.getLogger("phi3.endpoint")

MAX_BODY = 10 * 2**20  # bytes
# What is read of a refused request, in vain: an answer while its client still sends is lost in a reset.
DISCARD, DISCARD_S = 64 * 2**20, 5.0  # bytes, seconds
CLIENT_ID = "x-ms-client-request-id"
DEPLOYMENT = "azureml-model-deployment"  # asked for in a request, told in its answer
PICKED = "phi3.deployment"  # where the scope has it
# Azure takes letters, digits, dashes and underscores, and cuts at 40 characters.
NOT_IN_CLIENT_ID = re.compile(r"[^A-Za-z0-9_-]")
NOT_IN_LOG = re.compile(r"[^\x21-\x7e]")
# The reasons that the front end gives for a container's status; for the rest it is model_error.
REASONS = {429: "too_many_pending_request", 503: "model_not_ready"}
TOO_LATE = (408, "RequestTimeout", "The model took longer than request_timeout_ms.")


class FrontError(Exception):
    """A request that the front end refuses itself."""

    def __init__(self, status: int, code: str | int, message: str):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Front:
    """The routes. A handler takes a Starlette request and returns a response.

    Args:
        containers: the deployments; their weights are the traffic.
        key: what clients send as `Bearer`.
    """

    def __init__(self, containers: Sequence[Container], key: str):
        self._containers = {container.deployment.name: container for container in containers}
        self._expected = f"Bearer {key}".encode()
        self._started = int(time.time())

    async def health(self, request: Request) -> Response:
        if all(container.ready for container in self._containers.values()):
            return PlainTextResponse("Healthy")
        return PlainTextResponse("A model is being loaded.", 503)

    async def models(self, request: Request) -> Response:
        self._authorize(request)
        names = dict.fromkeys(container.model for container in self._containers.values())
        about = {"object": "model", "created": self._started, "owned_by": "local"}
        return JSONResponse({"object": "list", "data": [{"id": name, **about} for name in names]})

    async def document(self, request: Request) -> Response:
        return JSONResponse(_document())

    async def score(self, request: Request) -> Response:
        return await self._answer(request, _wrapped)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, _plain)

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}".encode("latin-1")
        if not hmac.compare_digest(given, self._expected):
            raise FrontError(401, "Unauthorized", "The key or token is missing, wrong or expired.")

    def _pick(self, request: Request) -> Container:
        """The deployment that the header names, or one by the traffic."""
        containers = list(self._containers.values())
        weights = [container.deployment.weight for container in containers]
        name = request.headers.get(DEPLOYMENT)
        if name is None:
            if not any(weights):
                raise FrontError(404, "NotFound", "Specified traffic group could not be found.")
            return random.choices(containers, weights)[0]
        if name not in self._containers:
            raise FrontError(404, "NotFound", "The endpoint has no deployment of this name.")
        return self._containers[name]

    async def _answer(self, request: Request, pass_on: Callable[..., Response]) -> Response:
        self._authorize(request)
        container = self._pick(request)
        request.scope[PICKED] = container.deployment.name
        exchange = _Exchange(request, container)
        try:
            first = await exchange.begin()
            if first.end:
                return pass_on(first.status, first.text)
            return _Stream(exchange)
        except ContainerError as error:
            return pass_on(error.status, _error(error.status, error.status, str(error)))
        except TimeoutError:
            raise FrontError(*TOO_LATE) from None
        finally:
            if not exchange.streams:
                exchange.end()


class _Exchange:
    """One request in one deployment, from its admission to the end of its answer."""

    def __init__(self, request: Request, container: Container):
        settings = container.deployment
        if container.in_flight >= settings.max_in_flight:
            raise FrontError(429, "TooManyRequests", "Too many requests are in flight.")
        container.in_flight += 1
        self.streams = False
        self._request = request
        self._container = container
        self._until = time.monotonic() + settings.request_timeout_ms / 1000
        self._call: Call | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def _left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    async def begin(self) -> Any:
        """Send the request; the first message. Raises FrontError, ContainerError, TimeoutError."""
        try:
            body = await asyncio.wait_for(_read(self._request), self._left)
        except asyncio.TimeoutError:
            raise TimeoutError from None
        self._call = self._container.ask(body, self._left)
        self._watch = asyncio.create_task(self._listen(self._call))
        first = await self._call.next()
        self.streams = not first.end
        return first

    async def rest(self) -> AsyncIterator[str]:
        """The events of a stream; what goes wrong is an event, and the last one."""
        call = self._call
        try:
            while call and not (message := await call.next()).end:
                yield message.text
        except ContainerError as error:
            yield _event(_error(error.status, error.status, str(error)))
        except TimeoutError:
            yield _event(_error(*TOO_LATE))

    async def _listen(self, call: Call) -> None:
        """A client that goes away ends its request."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        call.put(FrontError(499, "ClientClosedRequest", "The client went away."))

    def end(self) -> None:
        self._container.in_flight -= 1
        if self._watch:
            self._watch.cancel()
        if self._call:
            self._call.close()


class _Stream(StreamingResponse):
    """An answer that is passed on as it comes, and ends its exchange however it ends."""

    def __init__(self, exchange: _Exchange):
        self._exchange = exchange
        headers = {"cache-control": "no-cache"}
        super().__init__(exchange.rest(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with suppress(FrontError):  # the client went away
                await self.stream_response(send)
        finally:
            self._exchange.end()


class RequestLog:
    """ASGI middleware: gives every request an id and writes one line about it: never a body or a key."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        client_id = NOT_IN_CLIENT_ID.sub("", Headers(scope=scope).get(CLIENT_ID, ""))[:40]
        status = "none"

        async def send_with_ids(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                headers["x-ms-request-id"] = request_id
                if client_id:
                    headers[CLIENT_ID] = client_id
                if PICKED in scope:
                    headers[DEPLOYMENT] = scope[PICKED]
            await send(message)

        start = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_ids)
        finally:
            took = (time.perf_counter() - start) * 1000
            path = NOT_IN_LOG.sub("?", scope["path"])[:100]
            asked = f"{request_id} client={client_id or '-'} {scope['method']} {path}"
            log.info("%s %s %.0f ms %s", asked, status, took, scope.get(PICKED, "-"))


@functools.cache
def _document() -> Any:
    import yaml

    return yaml.safe_load(Path(__file__).with_name("api.yaml").read_text(encoding="utf-8"))


async def _read(request: Request) -> bytes:
    """The request's body. Raises FrontError: 413, or 400 when the client goes away."""
    limit = FrontError(413, "RequestTooLarge", f"The request is larger than {MAX_BODY} bytes.")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise limit
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise limit
    except ClientDisconnect as error:
        raise FrontError(400, "BadRequest", "The request was cut off.") from error
    return bytes(body)


async def _discard(request: Request) -> None:
    left = DISCARD
    if int(request.headers.get("content-length", 0)) <= left:  # uvicorn lets only numbers through
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                return


async def refused(request: Request, error: Any) -> Response:
    """The answer for a FrontError."""
    if error.status != 408:
        with suppress(asyncio.TimeoutError, ClientDisconnect, RuntimeError):  # or it has been read
            await asyncio.wait_for(_discard(request), DISCARD_S)
    # The body may not have been read to its end: the connection is of no more use.
    return JSONResponse(error.body, error.status, {"connection": "close"})


def _error(status: int, code: str | int, message: str) -> str:
    return json.dumps(FrontError(status, code, message).body)


def _event(body: str) -> str:
    return f"data: {body}\n\n"


def _plain(status: int, text: str) -> Response:
    """A container's answer as OpenAI's API has it."""
    return Response(text, status, media_type="application/json")


def _wrapped(status: int, text: str) -> Response:
    """A container's answer as Azure's front end passes it on: 424, the real status in a header."""
    if status == 200:
        return _plain(status, text)
    headers = {
        "ms-azureml-model-error-statuscode": str(status),
        "ms-azureml-model-error-reason": REASONS.get(status, "model_error"),
    }
    return Response(text, 424, headers, media_type="application/json")
