"""Bytes there and back over kept connections; every failure leaves here as a named error.

Requests finds the proxies and certificates that the environment names, and makes the connection pool;
requests go straight to the pool. Requests' session would keep cookies, let a .netrc entry replace the
key, read a redirect's whole body to look where it leads, and take as long again as the pool does.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

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
from .retry import Deadline, Limits
from .status import REQUEST_ID, error_for_response

CHUNK_BYTES = 64 * 1024
ERROR_BODY_BYTES = 64 * 1024
POOL_SIZE = 128  # connections kept open to the endpoint
NO_URL = "the connection's `endpoint` is no URL"


class Response:
    """An answer of success whose body is still to be read. Close it, or read it to its end."""

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
        """The whole body.

        Raises:
            ConnectionLostError, EndpointTimeoutError: the body did not come to its end.
            BadAnswerError: it is longer than allowed.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; raises what `read` raises. The connection is closed at the end."""
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
            named = _named(error, self._deadline)
            named.request_id = self.request_id
            raise named from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it was given back."""
        _close(self._response)


def _close(response: urllib3.BaseHTTPResponse) -> None:
    response.close()
    response.release_conn()


def _read(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """What has come, as soon as it comes: `read1` does not wait for a chunk to be full."""
    while chunk := response.read1(CHUNK_BYTES, decode_content=True):
        yield chunk


class _Incoming(io.RawIOBase):
    """A socket's bytes, until the call's deadline.

    A socket's own timeout begins anew with every byte, so that an answer which drips, its headers or
    its body, would never end.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._silence_s = sock.gettimeout() or deadline.seconds
        self._deadline = deadline
        deadline.interrupt = self._interrupt

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

    def _interrupt(self) -> None:
        # Not the TLS socket's own method, which takes its state away from the thread that reads.
        with suppress(OSError, TypeError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


_this_thread = threading.local()  # its `deadline` is that of the request being sent


class _HTTPResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        incoming = _Incoming(self.fp.detach(), sock, _this_thread.deadline)
        self.fp = io.BufferedReader(incoming)


class _Connection(HTTPConnection):
    response_class = _HTTPResponse


class _SecureConnection(HTTPSConnection):
    response_class = _HTTPResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    """Requests' adapter with connections that keep a call's deadline."""

    def init_poolmanager(self, *args: Any, **kw: Any) -> None:
        super().init_poolmanager(*args, **kw)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kw: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kw)
        if not proxy.lower().startswith("socks"):  # those have connections of their own
            _use_pools(manager)
        return manager


def _use_pools(manager: Any) -> None:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


class Transport:
    """Posts JSON to one endpoint. Safe to use from many threads.

    Args:
        url: where to post.
        pool_size: connections kept open.

    Raises:
        ConfigError: the URL is none, or the environment names certificates that are not there.
    """

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        self.url = url
        self._adapter = _Adapter(pool_connections=2, pool_maxsize=pool_size)
        # The environment's proxies and certificates are read once, not at each call.
        with requests.Session() as session:
            settings = session.merge_environment_settings(url, {}, True, None, None)
        verify: bool | str = settings["verify"] or True
        if isinstance(verify, str) and not os.path.exists(verify):
            raise ConfigError(
                f"there are no certificates at {verify}",
                hint="Correct REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE), or unset it.",
            )
        # Plain http is for this machine alone: a proxy would read the key.
        proxies = {} if url.startswith("http:") else settings["proxies"]
        try:
            request = requests.Request("POST", url).prepare()
            self._pool: Any = self._adapter.get_connection_with_tls_context(
                request, verify, proxies
            )
        except requests.RequestException as error:
            raise ConfigError(NO_URL) from error
        self._adapter.cert_verify(self._pool, url, verify, None)  # type: ignore[no-untyped-call]
        self._target = request.path_url
        self._headers = dict(requests.utils.default_headers())

    def post(
        self, body: bytes, headers: Mapping[str, str], limits: Limits, deadline: Deadline
    ) -> Response:
        """Send one request; the answer's headers are here when this returns.

        Redirects are not followed: the target might be another host, and the key is for this one.

        Raises:
            Phi3Error: the class that names the cause.
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
            raise _named(error, deadline) from error
        if response.status != 200:
            raise _refusal(response)
        return Response(response, deadline, limits.max_answer_bytes)

    def close(self) -> None:
        """Close the kept connections."""
        self._adapter.close()


def _refusal(response: urllib3.BaseHTTPResponse) -> Phi3Error:
    """The error that a status stands for; its body is read as far as it is needed and comes."""
    body = b""
    try:
        for chunk in _read(response):
            body += chunk
            if len(body) >= ERROR_BODY_BYTES:
                break
    except (HTTPError, OSError):
        pass  # the status alone says enough
    finally:
        _close(response)
    return error_for_response(response.status, response.headers, body)


def _named(error: Exception, deadline: Deadline) -> Phi3Error:
    """The named error for what urllib3 or the socket raised."""
    detail = _root(error)
    if isinstance(error, LocationParseError):
        return ConfigError(NO_URL)
    if deadline.left <= 0:
        return EndpointTimeoutError(f"no whole answer within {deadline.seconds:g} s")
    if isinstance(error, (NewConnectionError, ProxyError)):  # refused, unknown name
        return EndpointUnreachableError("no connection to the endpoint", detail=detail)
    if isinstance(error, ConnectTimeoutError):
        return EndpointUnreachableError("the endpoint could not be reached in time")
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return EndpointTimeoutError(f"the endpoint went silent after {deadline.elapsed:.1f} s")
    if isinstance(error, SSLError):
        return EndpointUnreachableError("no secure connection to the endpoint", detail=detail)
    return ConnectionLostError(
        "the connection broke before the whole answer was here", detail=detail
    )


def _root(error: BaseException) -> str:
    """The innermost cause's words: urllib3 wraps a refusal several times, with the URL in each."""
    network = (OSError, HTTPError, http.client.HTTPException)  # not what a caller was handling
    while isinstance(inner := error.__cause__ or error.__context__, network):
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
