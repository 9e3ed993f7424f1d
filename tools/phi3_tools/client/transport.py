"""HTTP requests over kept connections; every failure is raised as a `Phi3Error`.

The package requests finds the proxies and certificates that the environment names, and makes the
connection pool. Calls then use the pool directly. A session of requests would keep cookies, let a .netrc
entry replace the key, read the complete body of a redirect, and double the overhead of a call.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from ..errors import (
    BadAnswerError,
    ConfigError,
    ConnectionLostError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    Phi3Error,
)
from .auth import scoring_url
from .retry import Deadline, Limits
from .status import REQUEST_ID, error_for_response

CHUNK_BYTES = 64 * 1024
ERROR_BODY_BYTES = 64 * 1024
POOL_SIZE = 128  # connections kept open to the endpoint
INVALID_URL = "the connection's `endpoint` is not a valid URL"


class Response:
    """A response with status 200 whose body has not been read. Read it to its end, or close it."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, deadline: Deadline, max_bytes: int
    ) -> None:
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
        """Return the complete body.

        Raises:
            ConnectionLostError: the connection broke before the end of the body.
            EndpointTimeoutError: a time limit passed before the end of the body.
            BadAnswerError: the body is longer than allowed.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives, then close the response. Exceptions are those of `read`."""
        total = 0
        try:
            for chunk in _read(self._response):
                total += len(chunk)
                if total > self._max_bytes:
                    raise BadAnswerError(
                        f"the answer is longer than {self._max_bytes} bytes",
                        request_id=self.request_id,
                        hint="Ask for fewer tokens, or raise `max_answer_bytes`.",
                    )
                yield chunk
        except (HTTPError, OSError) as error:
            failure = _as_phi3_error(error, self._deadline)
            failure.request_id = self.request_id
            raise failure from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection. If the body was read to its end, the pool keeps the connection."""
        _close(self._response)


def _close(response: urllib3.BaseHTTPResponse) -> None:
    response.close()
    response.release_conn()


def _read(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield data as soon as it arrives: `read1` does not wait for a full chunk."""
    while chunk := response.read1(CHUNK_BYTES, decode_content=True):
        yield chunk


def _shut_down(sock: socket.socket) -> None:
    # The TLS socket's own method would remove state that the reading thread needs.
    with suppress(OSError, TypeError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _SocketReader(io.RawIOBase):
    """Reads from a socket until the call's deadline.

    A socket's own timeout starts again with every byte, so a response whose bytes arrive very slowly
    would never time out.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._silence_s = sock.gettimeout() or deadline.seconds
        self._deadline = deadline
        deadline.interrupt = partial(_shut_down, sock)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline.left
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(self._silence_s, left))
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._deadline.interrupt = None
        self._raw.close()
        super().close()


_this_thread = threading.local()  # `deadline` is the deadline of the request that is being sent


class _HTTPResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        reader = _SocketReader(self.fp.detach(), sock, _this_thread.deadline)
        self.fp = io.BufferedReader(reader)

    def begin(self) -> None:
        super().begin()
        # urllib3 logs headers that cannot be parsed. They may repeat the key.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Interruptible:
    """Lets a call be cancelled while its request is sent."""

    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._let_interrupt()

    def putrequest(self, *args: Any, **kw: Any) -> None:
        self._let_interrupt()  # a connection that was kept
        super().putrequest(*args, **kw)  # type: ignore[misc]

    def _let_interrupt(self) -> None:
        if self.sock:
            _this_thread.deadline.interrupt = partial(_shut_down, self.sock)


class _Connection(_Interruptible, HTTPConnection):
    response_class = _HTTPResponse


class _SecureConnection(_Interruptible, HTTPSConnection):
    response_class = _HTTPResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """The adapter of requests, with connections that observe a call's deadline."""

    def init_poolmanager(self, *args: Any, **kw: Any) -> None:
        super().init_poolmanager(*args, **kw)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kw: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kw)
        if not proxy.lower().startswith("socks"):  # SOCKS has its own connection classes
            _use_pools(manager)
        return manager


def _use_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


START_ENDPOINT = "Start the endpoint with `phi3 endpoint`, or correct the connection's `endpoint`."


class Transport:
    """Posts JSON to one endpoint. Safe to use from many threads.

    Args:
        url: URL of the requests.
        pool_size: number of connections to keep open.

    Raises:
        ConfigError: the URL is not valid, or the environment names certificates that do not exist.
    """

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        self.url = url = scoring_url(url)
        self._adapter = _Adapter(pool_connections=2, pool_maxsize=pool_size)
        # Proxies and certificates of the environment are read once, not at each call.
        with requests.Session() as session:
            settings = session.merge_environment_settings(url, {}, True, None, None)
        verify: bool | str = settings["verify"] or True
        if isinstance(verify, str) and not os.path.exists(verify):
            raise ConfigError(
                f"the certificates {verify} do not exist",
                hint="Correct REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE), or unset it.",
            )
        # Plain http is used for this machine only. A proxy could read the key.
        proxies = settings["proxies"] if urlsplit(url).scheme == "https" else {}
        try:
            request = requests.Request("POST", url).prepare()
            self._pool: Any = self._adapter.get_connection_with_tls_context(
                request, verify, proxies
            )
        except requests.RequestException as error:
            raise ConfigError(INVALID_URL) from error
        self._adapter.cert_verify(self._pool, url, verify, None)  # type: ignore[no-untyped-call]
        self._target = request.path_url
        self._headers = dict(requests.utils.default_headers())

    def post(
        self, body: bytes, headers: Mapping[str, str], limits: Limits, deadline: Deadline
    ) -> Response:
        """Send one request and return the response after its headers have arrived.

        Redirects are not followed, because the target may be another host, which must not get the key.

        Raises:
            Phi3Error: the subclass names the cause.
        """
        deadline.check()
        left = deadline.left
        timeout = urllib3.Timeout(
            connect=min(limits.connect_timeout_s, left), read=min(limits.read_timeout_s, left)
        )
        _this_thread.deadline = deadline
        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body,
                {**self._headers, **headers},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=timeout,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            deadline.interrupt = None
            failure = _as_phi3_error(error, deadline)
            is_local = urlsplit(self.url).scheme == "http"
            if is_local and isinstance(failure, EndpointUnreachableError):
                failure.hint = START_ENDPOINT
            raise failure from error
        if response.status != 200:
            raise _status_error(response)
        return Response(response, deadline, limits.max_answer_bytes)

    def close(self) -> None:
        """Close the kept connections."""
        self._adapter.close()


def _status_error(response: urllib3.BaseHTTPResponse) -> Phi3Error:
    """Return the error for a status; at most `ERROR_BODY_BYTES` of the body are read."""
    body = b""
    try:
        for chunk in _read(response):
            body += chunk
            if len(body) >= ERROR_BODY_BYTES:
                break
    except (HTTPError, OSError):
        pass  # the status is enough
    finally:
        _close(response)
    return error_for_response(response.status, response.headers, body)


def _as_phi3_error(error: Exception, deadline: Deadline) -> Phi3Error:
    """Return the error of this package for an exception of urllib3 or of the socket."""
    detail = _root_cause(error)
    if isinstance(error, LocationParseError):
        return ConfigError(INVALID_URL)
    if deadline.left <= 0:
        return deadline.error()
    if isinstance(error, (NewConnectionError, ProxyError)):  # refused, unknown name
        return EndpointUnreachableError("no connection to the endpoint", detail=detail)
    if isinstance(error, ConnectTimeoutError):
        return EndpointUnreachableError("the endpoint could not be reached in time")
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return EndpointTimeoutError(
            f"the endpoint sent no more data after {deadline.elapsed:.1f} s"
        )
    if isinstance(error, SSLError):
        return EndpointUnreachableError("no secure connection to the endpoint", detail=detail)
    return ConnectionLostError("the connection broke before the answer was complete", detail=detail)


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost cause; urllib3 wraps causes, with the URL in each message."""
    # Other classes are exceptions that the caller was handling.
    network_errors = (OSError, HTTPError, http.client.HTTPException)
    while isinstance(inner := error.__cause__ or error.__context__, network_errors):
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
