"""All faults of the local endpoint, in one table, and the functions that produce them.

Sources of the statuses and headers: "Troubleshoot online endpoints deployment and scoring".
"""

from __future__ import annotations

import json
import math
import socket
import struct
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TRANSPORT = "phi3.transport"  # key of the connection's transport in the ASGI scope
DRIPS = 25  # pieces of a slow body
SETTLE_S = 0.05  # seconds for the sent bytes to arrive before the connection breaks
JSON_TYPE = "application/json"


@dataclass
class Answer:
    """A complete response, before it is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def is_stream(self) -> bool:
        return dict(self.headers).get(b"content-type", b"").startswith(b"text/event-stream")


@dataclass(frozen=True)
class Wire:
    """The connection to the client.

    Attributes:
        scope, receive, send: the arguments of an ASGI app.
    """

    scope: Any
    receive: Callable[[], Awaitable[Any]]
    send: Callable[[Any], Awaitable[None]]

    async def start(self, answer: Answer) -> None:
        """Send the status and the headers."""
        length = (b"content-length", str(len(answer.body)).encode())
        headers = answer.headers if answer.is_stream else [*answer.headers, length]
        await self.send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )

    async def write(self, body: bytes, more: bool = True) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def hang_up(self, reset: bool) -> None:
        """Break the connection: with a TCP reset, or with a normal close."""
        transport = self.scope.get(TRANSPORT)
        if transport is None:
            raise RuntimeError("only a real connection can be broken")
        await sleep(SETTLE_S)
        if reset:
            # Lingering for 0 seconds makes the kernel answer with RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            transport.abort()
        else:
            transport.close()
        while (await self.receive())["type"] != "http.disconnect":
            pass


# --- how an answer is sent --------------------------------------------------------------------


async def send_answer(wire: Wire, answer: Answer, seconds: float) -> None:
    await wire.start(answer)
    await wire.write(answer.body, more=False)


async def _send_late(wire: Wire, answer: Answer, seconds: float) -> None:
    await sleep(seconds)
    await send_answer(wire, answer, seconds)


async def _send_slowly(wire: Wire, answer: Answer, seconds: float) -> None:
    await wire.start(answer)
    size = max(1, math.ceil(len(answer.body) / DRIPS))
    for start in range(0, len(answer.body), size):
        await wire.write(answer.body[start : start + size])
        await sleep(seconds / DRIPS)
    await wire.write(b"", more=False)


async def _reset(wire: Wire, answer: Answer, seconds: float) -> None:
    await wire.hang_up(reset=True)


async def _reset_after_headers(wire: Wire, answer: Answer, seconds: float) -> None:
    await wire.start(answer)
    await wire.hang_up(reset=True)


async def _reset_mid_body(wire: Wire, answer: Answer, seconds: float) -> None:
    await _send_half(wire, answer)
    await wire.hang_up(reset=True)


async def _close_mid_body(wire: Wire, answer: Answer, seconds: float) -> None:
    await _send_half(wire, answer)
    await wire.hang_up(reset=False)


async def _send_half(wire: Wire, answer: Answer) -> None:
    await wire.start(answer)
    await wire.write(answer.body[: len(answer.body) // 2])


# --- changes of a healthy answer's body -------------------------------------------------------

Change = Callable[[bytes, int], bytes]  # body, padding in MiB -> body
EVENT = b"data: "
ERROR_EVENT = {"error": {"message": "The engine failed.", "type": "server_error", "code": 500}}


def _cut_json(body: bytes, mib: int) -> bytes:
    if not body.startswith(EVENT):
        return body[: len(body) // 2]
    event = body.rfind(EVENT, 0, len(body) // 2 + len(EVENT))
    return body[: event + len(EVENT) + 5]


def _cut_stream(body: bytes, mib: int) -> bytes:
    events = _events(body)
    return b"".join(events[: len(events) // 2])


def _break_stream(body: bytes, mib: int) -> bytes:
    events = _events(body)
    events.insert(len(events) // 2, EVENT + json.dumps(ERROR_EVENT).encode() + b"\n\n")
    return b"".join(events)


def _pad(body: bytes, mib: int) -> bytes:
    # Both stay valid: spaces after the JSON, or comment lines before the first event.
    if not body.startswith(EVENT):
        return body + b" " * (mib * 2**20)
    return (b":" + b"x" * 1022 + b"\n") * (mib * 1024) + b"\n" + body


def _events(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One way to fail. Without a status, the fault changes the healthy answer or how it is sent.

    Attributes:
        summary: description for the documentation.
        status: status of a canned answer, or None.
        headers: headers of a canned answer; `{seconds}` is replaced with the duration.
        body: body of a canned answer.
        change: changes the body of the healthy answer.
        deliver: sends the answer.
        seconds: duration, unless the rule sets one.
        streams_only: whether only requests that ask to stream can fail so.
    """

    summary: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    change: Change | None = None
    deliver: Callable[[Wire, Answer, float], Awaitable[None]] = send_answer
    seconds: float = 0
    streams_only: bool = False

    def canned(self, status: int, seconds: float) -> Answer:
        """Return the answer that does not depend on the request."""
        headers = {"content-type": JSON_TYPE, **self.headers}
        return Answer(
            status,
            [
                (k.encode(), v.format(seconds=math.ceil(seconds)).encode())
                for k, v in headers.items()
            ],
            self.body,
        )


def refused_answer(status: int, code: str, message: str, **more: Any) -> Fault:
    """Return a fault that is a refusal by the front end."""
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    return Fault(f"{status}: {message}", status, body=body, **more)


def _container_error(status: int, reason: str) -> Fault:
    """Return a fault that is an error of the container, as the front end forwards it."""
    headers = {
        "ms-azureml-model-error-statuscode": str(status),
        "ms-azureml-model-error-reason": reason,
    }
    error = {"message": f"The container failed: {reason}.", "type": "server_error", "code": status}
    body = json.dumps({"error": error}).encode()
    return Fault(f"424 around the container's {status}, {reason}", 424, headers, body)


def _proxy_page(status: int, title: str) -> Fault:
    """Return a fault that is the answer of a proxy between client and endpoint."""
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Fault(
        f"{status} with an HTML page", status, {"content-type": "text/html"}, page.encode()
    )


def _error_in_200(body: Any, summary: str) -> Fault:
    """Return a fault that has the status 200, but no answer."""
    return Fault(summary, 200, body=json.dumps(body).encode())


TOO_MANY = ("TooManyRequests", "Too many requests are in flight.")
RETRY_AFTER = {"retry-after": "{seconds}"}
ENGINE_FAILED = {"output": None, "error": {"message": "The engine failed.", "code": 500}}

FAULTS: dict[str, Fault] = {
    "401": refused_answer(401, "Unauthorized", "The key or token is missing, wrong or expired."),
    "403": refused_answer(403, "Forbidden", "This address may not call the endpoint."),
    "404-no-traffic": refused_answer(
        404, "NotFound", "Specified traffic group could not be found."
    ),
    "404-retired": refused_answer(404, "NotFound", "The deployment was retired."),
    "408": refused_answer(408, "RequestTimeout", "The model took longer than request_timeout_ms."),
    "413": refused_answer(413, "RequestTooLarge", "The request is too large."),
    "424-400": _container_error(400, "model_error"),
    "424-429": _container_error(429, "too_many_pending_request"),
    "424-500": _container_error(500, "model_error"),
    "424-model-not-ready": _container_error(503, "model_not_ready"),
    "429": refused_answer(429, *TOO_MANY),
    "429-retry-after": refused_answer(429, *TOO_MANY, headers=RETRY_AFTER, seconds=1),
    "500": refused_answer(500, "InternalServerError", "The endpoint's infrastructure failed."),
    "502": _proxy_page(502, "502 Bad Gateway"),
    "503": _proxy_page(503, "503 Service Unavailable"),
    "504": _proxy_page(504, "504 Gateway Time-out"),
    "not-json": _proxy_page(200, "Sign in"),
    "error-in-200": _error_in_200(ENGINE_FAILED, "200 with an error in the body"),
    "empty-200": _error_in_200({}, "200 with {}"),
    "truncated-json": Fault("200 with truncated JSON and a correct length", change=_cut_json),
    "oversized": Fault("200 with mib MiB of padding", change=_pad),
    "slow-headers": Fault("no answer for some seconds", deliver=_send_late, seconds=2),
    "slow-body": Fault(
        "a body that is sent slowly for some seconds", deliver=_send_slowly, seconds=2
    ),
    "reset": Fault("a TCP reset instead of an answer", deliver=_reset),
    "reset-after-headers": Fault("a TCP reset before the body", deliver=_reset_after_headers),
    "reset-mid-body": Fault("a TCP reset in the middle of the body", deliver=_reset_mid_body),
    "close-mid-body": Fault("a normal close in the middle of the body", deliver=_close_mid_body),
    "stream-cut": Fault("a stream that ends early", change=_cut_stream, streams_only=True),
    "stream-error": Fault("an error event in the middle", change=_break_stream, streams_only=True),
}
