"""Bounds for the connections of a server: their number, and the time in which a request must arrive.

uvicorn has neither: half-sent requests stay open, and each of them takes memory and a file descriptor.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from .http_protocol import HttpProtocol

BODY = '{{"error": {{"code": "UserError", "message": "{}"}}}}'


class BoundedProtocol(HttpProtocol):
    """uvicorn's protocol with these bounds.

    Attributes:
        request_s: seconds in which the head and the body of a request must arrive, and in which a new
            connection must send its first request.
        min_rate: bytes per second; a request that arrives at least as fast may take longer.
        max_connections: number of connections. One more ends the one that has been idle for the longest
            time after an answer. If none is idle, it ends the one whose request has been arriving for
            the longest time. If all requests have arrived, the new connection is answered with 503.
    """

    request_s = 20.0
    min_rate = 32 * 1024
    max_connections = 256

    _timer: asyncio.TimerHandle | None = None
    _received = 0  # bytes since the timer was started

    def error_body(self, status: HTTPStatus, message: str) -> str:
        """Return the body of a 408 or 503, in ASCII."""
        return BODY.format(message)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.max_connections:
            self._end_one_connection()

    def _end_one_connection(self) -> None:
        bounded = [other for other in self.connections if isinstance(other, BoundedProtocol)]
        idle = [
            (other.timeout_keep_alive_task.when(), other)
            for other in bounded
            if other.timeout_keep_alive_task is not None
        ]
        if idle:
            _, oldest = min(idle, key=lambda pair: pair[0])
            oldest._unset_keepalive_if_required()  # the next new connection ends another one
            oldest.transport.close()
            return
        arriving = [(other._timer.when(), other) for other in bounded if other._timer is not None]
        _, oldest = min(arriving, key=lambda pair: pair[0])
        oldest._end_request(HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections")

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        # After an answer, new data are the beginning of the next request.
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            self._start_timer()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._received = 0
            self._timer = self.loop.call_later(self.request_s, self._check_progress)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_progress(self) -> None:
        """End the request unless it arrives fast enough."""
        self._timer = None
        if self._received >= self.min_rate * self.request_s:
            self._start_timer()
            return
        message = f"the request did not arrive within {self.request_s:g} seconds"
        self._end_request(HTTPStatus.REQUEST_TIMEOUT, message)

    def _end_request(self, status: HTTPStatus, message: str) -> None:
        """Close the connection, with this answer if the request has none."""
        self._stop_timer()
        if self.cycle is not None and self.cycle.response_started and self.cycle.more_body:
            self.transport.close()  # the request was refused before its body arrived
            return
        body = self.error_body(status, message)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join([*head, "", body]).encode("ascii"))
        self.transport.close()
