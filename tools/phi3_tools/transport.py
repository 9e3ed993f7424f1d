"""Bytes there and back over one `requests.Session`; every failure leaves here as a named error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, LocationParseError

from .errors import (
    BadAnswer,
    ConfigError,
    ConnectionLost,
    EndpointTimeout,
    EndpointUnreachable,
    Phi3Error,
)
from .retry import Deadline, Limits
from .status import REQUEST_ID, error_for

CHUNK_BYTES = 64 * 1024
ERROR_BODY_BYTES = 64 * 1024
POOL_SIZE = 128  # connections kept open to the endpoint


class Response:
    """An answer of success whose body is still to be read. Close it, or read it to its end."""

    def __init__(self, response: requests.Response, deadline: Deadline, max_bytes: int) -> None:
        self._response = response
        self._deadline = deadline
        self._max_bytes = max_bytes

    @property
    def request_id(self) -> str | None:
        return self._response.headers.get(REQUEST_ID)

    @property
    def is_stream(self) -> bool:
        kind = str(self._response.headers.get("content-type", ""))
        return kind.lower().startswith("text/event-stream")

    def read(self) -> bytes:
        """The whole body.

        Raises:
            ConnectionLost, EndpointTimeout: the body did not come to its end.
            BadAnswer: it is longer than allowed.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; raises what `read` raises. The connection is closed at the end."""
        total = 0
        try:
            for chunk in _read(self._response.raw):
                total += len(chunk)
                if total > self._max_bytes:
                    raise BadAnswer(
                        f"the answer is longer than {self._max_bytes} bytes",
                        request_id=self.request_id,
                        hint="Ask for fewer tokens, or raise `max_answer_bytes`.",
                    )
                yield chunk
                self._deadline.check()
        except (HTTPError, OSError) as error:
            raise _named(error, self._deadline) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back where the body was read to its end, else close it."""
        raw = self._response.raw
        if raw is not None and not _at_end(raw):
            raw.close()
        self._response.close()


def _at_end(raw: Any) -> bool:
    return bool(getattr(getattr(raw, "_original_response", None), "isclosed", lambda: False)())


def _read(raw: Any) -> Iterator[bytes]:
    """What has come, as soon as it comes: `read1` does not wait for a chunk to be full."""
    while chunk := raw.read1(CHUNK_BYTES, decode_content=True):
        yield chunk


class Transport:
    """Posts JSON to one endpoint. Safe to use from many threads.

    Args:
        url: where to post.
        pool_size: connections kept open.
    """

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=2, pool_maxsize=pool_size)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        # Proxy and certificate settings of the environment are read once, not at each call. With
        # trust_env on, requests would also let a .netrc entry replace the key.
        settings = self._session.merge_environment_settings(url, {}, True, None, None)
        self._settings: dict[str, Any] = {
            name: settings[name] for name in ("proxies", "verify", "cert")
        }
        self._session.trust_env = False
        self._prepared = self._session.prepare_request(requests.Request("POST", url))

    def post(
        self, body: bytes, headers: Mapping[str, str], limits: Limits, deadline: Deadline
    ) -> Response:
        """Send one request; the answer's headers are here when this returns.

        Redirects are not followed: the target might be another host, and the key is for this one.

        Raises:
            Phi3Error: the class that names the cause.
        """
        deadline.check()
        request = self._prepared.copy()
        request.headers.update(headers)
        request.headers["Content-Length"] = str(len(body))
        request.body = body
        left = deadline.left
        timeout = (min(limits.connect_timeout_s, left), min(limits.read_timeout_s, left))
        try:
            response = self._session.send(
                request, stream=True, timeout=timeout, allow_redirects=False, **self._settings
            )
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise _named(error, deadline) from error
        if response.status_code != 200:
            raise _refusal(response, deadline)
        return Response(response, deadline, limits.max_answer_bytes)

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()


def _refusal(response: requests.Response, deadline: Deadline) -> Phi3Error:
    """The error that a status stands for; its body is read as far as it is needed and comes."""
    body = b""
    try:
        for chunk in _read(response.raw):
            body += chunk
            if len(body) >= ERROR_BODY_BYTES or deadline.left <= 0:
                break
    except (HTTPError, OSError):
        pass  # the status alone says enough
    finally:
        if not _at_end(response.raw):
            response.raw.close()
        response.close()
    return error_for(response.status_code, response.headers, body)


def _named(error: Exception, deadline: Deadline) -> Phi3Error:
    """The named error for what requests, urllib3 or the socket raised."""
    if isinstance(
        error, (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
    ):
        return EndpointUnreachable("the endpoint could not be reached in time")
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return EndpointTimeout(f"the endpoint went silent after {deadline.elapsed:.1f} s")
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        return EndpointUnreachable("no secure connection to the endpoint", detail=_root(error))
    if _is_new_connection(error):
        return EndpointUnreachable("no connection to the endpoint", detail=_root(error))
    if isinstance(error, (requests.exceptions.InvalidURL, LocationParseError, ValueError)) and not (
        isinstance(error, (requests.ConnectionError, OSError, HTTPError))
    ):
        return ConfigError("the connection's `endpoint` is no URL")
    return ConnectionLost(
        "the connection broke before the whole answer was here", detail=_root(error)
    )


def _is_new_connection(error: BaseException) -> bool:
    """Whether the connection never came about (refused, unknown name, proxy), so not in its midst."""
    kinds = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ProxyError,
        ConnectionRefusedError,
    )
    if isinstance(error, (requests.exceptions.ProxyError, *kinds)):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, kinds)


def _root(error: BaseException) -> str:
    """The innermost cause's words: urllib3 wraps a refusal four times over, with the URL in each."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
