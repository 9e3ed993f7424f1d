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
        max_connections: number of connections. One more ends the one whose request has been arriving for
            the longest time. If all requests have arrived, the new connection is answered with 503.
    """

    request_s = 20.0
    max_connections = 256

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.max_connections:
            deadlines = [
                (each._timer.when(), each)
                for each in self.connections
                if isinstance(each, BoundedProtocol) and each._timer is not None
            ]
            _, oldest = min(deadlines, key=lambda pair: pair[0])
            oldest._end_request(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections"
            )

    def data_received(self, data: bytes) -> None:
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
            message = f"the request did not arrive within {self.request_s:g} seconds"
            self._timer = self.loop.call_later(
                self.request_s, self._end_request, HTTPStatus.REQUEST_TIMEOUT, message
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_request(self, status: HTTPStatus, message: str) -> None:
        """Close the connection, with this answer if the request has none."""
        self._stop_timer()
        if self.cycle is not None and self.cycle.response_started and self.cycle.more_body:
            self.transport.close()  # the request was refused before its body arrived
            return
        body = BODY.format(message)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join([*head, "", body]).encode("ascii"))
        self.transport.close()
