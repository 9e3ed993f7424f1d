"""The front end of the deployments: keys, traffic, limits, timeouts, and how errors are forwarded.

Sources: "Troubleshoot online endpoints deployment and scoring" (statuses, request ids, how a
container's errors are wrapped), "Safe rollout for online endpoints" (traffic, the deployment header)
and "OpenAI API reference: chat completions" (/v1). It implements these documents without any code of the
client, so that a mistake in one of the two is noticed.
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
# Limits for reading the rest of a refused request. If the server answered and closed while the client
# still sends, a TCP reset would destroy the answer.
DISCARD, DISCARD_S = 64 * 2**20, 5.0  # bytes, seconds
CLIENT_ID = "x-ms-client-request-id"
DEPLOYMENT = "azureml-model-deployment"  # header of requests and of answers
PICKED = "phi3.deployment"  # key of the chosen deployment in the ASGI scope
# Azure keeps letters, digits, dashes and underscores, and at most 40 characters.
NOT_IN_CLIENT_ID = re.compile(r"[^A-Za-z0-9_-]")
NOT_IN_LOG = re.compile(r"[^\x21-\x7e]")
# The front end's reasons for a container's status; for other statuses, the reason is model_error.
REASONS = {429: "too_many_pending_request", 503: "model_not_ready"}
TOO_LATE = (408, "RequestTimeout", "The model took longer than request_timeout_ms.")


class FrontError(Exception):
    """A request that the front end itself refuses.

    Args:
        status: HTTP status.
        code: `code` in the body.
        message: `message` in the body.
    """

    def __init__(self, status: int, code: str | int, message: str):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Front:
    """The routes. A handler takes a Starlette request and returns a response.

    Args:
        containers: the deployments with their traffic weights.
        key: key that clients send as `Bearer`.
    """

    def __init__(self, containers: Sequence[Container], key: str):
        self._containers = {container.deployment.name: container for container in containers}
        self._key = key.encode()
        self._started = int(time.time())

    async def health(self, request: Request) -> Response:
        """Return 200 if every model is loaded, or 503."""
        if all(container.ready for container in self._containers.values()):
            return PlainTextResponse("Healthy")
        return PlainTextResponse("A model is being loaded.", 503)

    async def models(self, request: Request) -> Response:
        """Return the list of models, in the form of OpenAI's API."""
        self._authorize(request)
        runtimes: dict[str, str] = {}
        for container in self._containers.values():
            runtimes.setdefault(container.model, container.runtime)
        common = {"object": "model", "created": self._started, "owned_by": "local"}
        data = [{"id": name, **common, "runtime": runtime} for name, runtime in runtimes.items()]
        return JSONResponse({"object": "list", "data": data})

    async def document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return JSONResponse(_document())

    async def score(self, request: Request) -> Response:
        """Score a request; the container's errors become 424."""
        return await self._answer(request, _wrapped_response)

    async def chat(self, request: Request) -> Response:
        """Score a chat request; the container's errors keep their status."""
        return await self._answer(request, _plain_response)

    def _authorize(self, request: Request) -> None:
        # Starlette decodes headers as Latin-1, so this gives the bytes that were sent.
        header = request.headers.get("authorization", "").encode("latin-1")
        scheme, _, key = header.partition(b" ")
        is_key = hmac.compare_digest(key.strip(), self._key)
        if scheme.lower() != b"bearer" or not is_key:
            raise FrontError(401, "Unauthorized", "The key or token is missing, wrong or expired.")

    def _pick(self, request: Request) -> Container:
        """Return the deployment in the request's header, or choose one by the traffic weights."""
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

    async def _answer(
        self, request: Request, to_response: Callable[[int, str], Response]
    ) -> Response:
        self._authorize(request)
        container = self._pick(request)
        request.scope[PICKED] = container.deployment.name
        exchange = _Exchange(request, container)
        try:
            first = await exchange.begin()
            if first.end:
                return to_response(first.status, first.text)
            return _Stream(exchange)
        except ContainerError as error:
            return to_response(error.status, _error_body(error.status, error.status, str(error)))
        except TimeoutError:
            raise FrontError(*TOO_LATE) from None
        finally:
            if not exchange.streams:
                exchange.end()


class _Exchange:
    """One request in one deployment, from its admission to the end of its answer.

    Attributes:
        streams: whether the answer is a stream.
    """

    def __init__(self, request: Request, container: Container):
        settings = container.deployment
        if container.in_flight >= settings.max_in_flight:
            raise FrontError(429, "TooManyRequests", "Too many requests are in flight.")
        container.in_flight += 1
        self.streams = False
        self._request = request
        self._container = container
        self._deadline = time.monotonic() + settings.request_timeout_ms / 1000
        self._call: Call | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def _remaining_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    async def begin(self) -> Any:
        """Send the request and return the first message of the container.

        Raises:
            FrontError: the body is too large, or the client went away.
            ContainerError: the container cannot answer.
            TimeoutError: the time limit of the deployment has passed.
        """
        try:
            body = await asyncio.wait_for(_read(self._request), self._remaining_s)
        except asyncio.TimeoutError:
            raise TimeoutError from None
        self._call = self._container.ask(body, self._remaining_s)
        self._watch = asyncio.create_task(self._cancel_on_disconnect(self._call))
        first = await self._call.next()
        self.streams = not first.end
        return first

    async def rest(self) -> AsyncIterator[str]:
        """Yield the events of a stream. An error is the last event."""
        call = self._call
        try:
            while call and not (message := await call.next()).end:
                yield message.text
        except ContainerError as error:
            yield _event(_error_body(error.status, error.status, str(error)))
        except TimeoutError:
            yield _event(_error_body(*TOO_LATE))

    async def _cancel_on_disconnect(self, call: Call) -> None:
        """End the request when its client goes away."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        call.put(FrontError(499, "ClientClosedRequest", "The client went away."))

    def end(self) -> None:
        """Release the request's slot, and cancel it in the container unless it has ended."""
        self._container.in_flight -= 1
        if self._watch:
            self._watch.cancel()
        if self._call:
            self._call.close()


class _Stream(StreamingResponse):
    """A streamed answer. It ends its exchange in every case."""

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
    """ASGI middleware that gives every request an id and logs one line, without its body or key."""

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
            elapsed_ms = (time.perf_counter() - start) * 1000
            path = NOT_IN_LOG.sub("?", scope["path"])[:100]
            line = f"{request_id} client={client_id or '-'} {scope['method']} {path}"
            log.info("%s %s %.0f ms %s", line, status, elapsed_ms, scope.get(PICKED, "-"))


@functools.cache
def _document() -> Any:
    from ..yaml_files import load_yaml

    return load_yaml(Path(__file__).with_name("api.yaml"))


async def _read(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        FrontError: 413 if the body is too large, 400 if the client goes away.
    """
    too_large = FrontError(413, "RequestTooLarge", f"The request is larger than {MAX_BODY} bytes.")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise too_large
    except ClientDisconnect as error:
        raise FrontError(400, "BadRequest", "The request is incomplete.") from error
    return bytes(body)


async def _discard(request: Request) -> None:
    remaining = DISCARD
    if int(request.headers.get("content-length", 0)) <= remaining:  # uvicorn admits only numbers
        async for chunk in request.stream():
            remaining -= len(chunk)
            if remaining < 0:
                return


async def refusal(request: Request, error: Any) -> Response:
    """Return the response for a FrontError."""
    if error.status != 408:
        # RuntimeError: the body has been read already.
        with suppress(asyncio.TimeoutError, ClientDisconnect, RuntimeError):
            await asyncio.wait_for(_discard(request), DISCARD_S)
    # The rest of the body may be unread, so the connection cannot be used again.
    return JSONResponse(error.body, error.status, {"connection": "close"})


def _error_body(status: int, code: str | int, message: str) -> str:
    return json.dumps(FrontError(status, code, message).body)


def _event(body: str) -> str:
    return f"data: {body}\n\n"


def _plain_response(status: int, text: str) -> Response:
    """Return a container's answer as in OpenAI's API, with its own status."""
    return Response(text, status, media_type="application/json")


def _wrapped_response(status: int, text: str) -> Response:
    """Return a container's answer as Azure's front end forwards it: errors are 424, with a header."""
    if status == 200:
        return _plain_response(status, text)
    headers = {
        "ms-azureml-model-error-statuscode": str(status),
        "ms-azureml-model-error-reason": REASONS.get(status, "model_error"),
    }
    return Response(text, 424, headers, media_type="application/json")
