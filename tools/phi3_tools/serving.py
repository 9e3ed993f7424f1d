"""Checks of the requests to a served flow, in front of Prompt flow's serving app.

`phi3 serve` and the image of `phi3 flow build` use them. Prompt flow opens the files and the URLs that a
request names as images, on the event loop that answers everybody. It reads bodies of any size, and it
answers a wrong method with 500. Its Starlette builds `request.url` from a Host header and a path that it
does not check (CVE-2026-48710, CVE-2026-54282). Such requests are refused here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, TypeVar

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
T = TypeVar("T")

# More than the context of 128 thousand tokens, also in a script of which each character is an escape.
MAX_BODY_BYTES = 2 * 2**20
MAX_DEPTH = 64  # nested arrays and objects in a body
MAX_CONTAINERS = 20_000  # arrays and objects in a body: Prompt flow copies them on the event loop
MAX_KEY_CHARS = 64  # characters of a key that an error text quotes
ROUTES = {
    "/score": "POST",
    "/feedback": "POST",
    "/health": "GET",
    "/version": "GET",
    "/swagger.json": "GET",
}
# Prompt flow's two formats of images: {"data:image/png;path": …}, and {"type": "image_url", …}.
IMAGE_KEY = "data:image/"
IMAGE_TYPES = ("image_url", "image_file")
# The host and port of RFC 9110, section 7.2, without percent-encoding and sub-delimiters.
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?")


class RefusedRequest(Exception):  # noqa: N818 - not an error of the server
    """A request that is answered without the app.

    Args:
        status: status code of the answer.
        message: what is wrong with the request.
        headers: further headers of the answer.
        code: `UserError`, or `SystemError` if the caller cannot mend it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str = "UserError",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status, self.message, self.headers = status, message, headers or {}

    @property
    def content(self) -> dict[str, Any]:
        """The body of the answer, in the form of Prompt flow's errors."""
        return {"error": {"code": self.code, "message": self.message}}

    async def send(self, send: Any) -> None:
        """Send the answer."""
        body = json.dumps(self.content).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


class ClientLeft(Exception):  # noqa: N818 - not an error of the server
    """The client has closed its connection."""


class CheckedRequests:
    """ASGI middleware that passes on only the requests that Prompt flow's serving app can answer.

    Args:
        app: Prompt flow's serving app.
        input_types: input of the flow -> its type, such as `string`.
    """

    def __init__(self, app: App, input_types: Mapping[str, str]) -> None:
        self._app, self._input_types = app, input_types

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            require_well_formed(scope)
            _require_route(scope)
            if scope["method"] == "POST":
                body = await read_body(scope, receive)
                if body is None:
                    return
                if scope["path"] == "/score":
                    require_inputs(body, self._input_types)
                receive = _with_body(body, receive)
        except RefusedRequest as refused:
            await refused.send(send)
        else:
            await self._app(scope, receive, send)


def require_well_formed(scope: Scope) -> None:
    """Check the path and the Host header, from which Starlette makes `request.url`, and all headers.

    OpenTelemetry fails on a header that it cannot decode, and the answer would be a 500.

    Raises:
        RefusedRequest: 400, because the path does not begin with `/`, the Host header is not a host, or a
            header is not UTF-8.
    """
    if not scope["path"].startswith("/"):
        raise RefusedRequest(400, "the path does not begin with /")
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1 or not all(HOST.fullmatch(host) for host in hosts):
        raise RefusedRequest(400, "the Host header is not a host name with an optional port")
    for name, value in scope["headers"]:
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise RefusedRequest(400, f"the header {name.decode('latin-1')} is not UTF-8") from None


async def read_body(scope: Scope, receive: Any) -> bytes | None:
    """Return the complete body of a request, or None if the client has left.

    Raises:
        RefusedRequest: 413, because the body is larger than `MAX_BODY_BYTES`.
    """
    too_large = RefusedRequest(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise too_large
        if not message.get("more_body"):
            return bytes(body)


async def unless_left(work: Awaitable[T], receive: Callable[[], Awaitable[Any]]) -> T:
    """Return the result of work, which is cancelled if the client leaves.

    Args:
        work: a coroutine, for example.
        receive: ASGI's function of this name; the body of the request has been read.

    Raises:
        ClientLeft: the client has left.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        left.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def require_inputs(body: bytes, input_types: Mapping[str, str]) -> None:
    """Check the body of a request to `/score`. Prompt flow reads other texts than JSON as the only input.

    Raises:
        RefusedRequest: 400, because the body is not a JSON object, is nested too deeply, contains a lone
            surrogate, or refers to an image.
    """
    try:
        inputs = json.loads(body)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        try:
            inputs = {name: body.decode("utf-8") for name in input_types}
        except UnicodeDecodeError:
            raise RefusedRequest(400, "the body is not UTF-8") from None
    if not isinstance(inputs, dict):
        raise RefusedRequest(400, "the body is not a JSON object")
    if b"\\ud" in body.lower():
        _require_unicode(inputs)
    for name, value in inputs.items():
        input_type = input_types.get(name)
        if input_type == "image":
            raise _image_refused(name)
        if isinstance(value, str) and input_type != "string":
            inputs[name] = _parsed(value)  # as Prompt flow does
    _refuse_images(inputs)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        return text


def _refuse_images(inputs: Mapping[str, Any]) -> None:
    """Raise RefusedRequest if a value contains a reference to an image at any depth."""
    # Each entry is a value, its depth, and its path as a chain of keys from the last to the first.
    stack: list[tuple[Any, int, tuple[Any, ...]]] = [(inputs, 0, ())]
    count = 0
    while stack:
        item, depth, keys = stack.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        if count > MAX_CONTAINERS:
            message = f"the body has more than {MAX_CONTAINERS} arrays and objects"
            raise RefusedRequest(400, message)
        if isinstance(item, dict):
            for key, child in item.items():
                if key.startswith(IMAGE_KEY):
                    raise _image_refused(_path((keys, key)))
                if isinstance(child, (dict, list)):
                    stack.append((child, depth + 1, (keys, key)))
            image_type = item.get("type")
            if isinstance(image_type, str) and image_type in IMAGE_TYPES and image_type in item:
                raise _image_refused(_path((keys, image_type)))
        elif isinstance(item, list):
            stack += [
                (child, depth + 1, (keys, index))
                for index, child in enumerate(item)
                if isinstance(child, (dict, list))
            ]


def _path(keys: tuple[Any, ...]) -> str:
    """Return a chain of keys as text, such as `chat_history[0].inputs["data:image/png;path"]`."""
    parts = []
    while keys:
        keys, key = keys
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif key.isidentifier():
            parts.append(f".{key[:MAX_KEY_CHARS]}")
        else:
            parts.append(f"[{json.dumps(key[:MAX_KEY_CHARS])}]")
    return "".join(reversed(parts)).removeprefix(".")


def _image_refused(path: str) -> RefusedRequest:
    return RefusedRequest(400, f"{path} refers to an image; the flow reads only text")


def _too_deep() -> RefusedRequest:
    return RefusedRequest(400, f"the body has more than {MAX_DEPTH} nested arrays and objects")


def _require_unicode(inputs: Mapping[str, Any]) -> None:
    try:
        json.dumps(inputs, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise RefusedRequest(400, "the body contains half of a surrogate pair") from None


def _require_route(scope: Scope) -> None:
    method = ROUTES.get(scope["path"])
    if method is None:
        raise RefusedRequest(404, f"the routes are {', '.join(ROUTES)}")
    if scope["method"] != method:
        raise RefusedRequest(405, f"{scope['path']} accepts only {method}", {"allow": method})


def _with_body(body: bytes, receive: Any) -> Any:
    """Return a `receive` that gives the complete body first, and then what the client does."""
    is_read = False

    async def receive_body() -> Any:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body
