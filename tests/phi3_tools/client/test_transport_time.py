"""Time limits of requests against real sockets: silent and slow responses, cancelled calls."""

from __future__ import annotations

import threading
import time

import pytest

from phi3_tools import (
    EndpointTimeoutError,
    Limits,
    ServerError,
)
from phi3_tools.client.retry import Deadline
from phi3_tools.client.transport import Transport

HANG_S = 30
HEADERS = {"Authorization": "Bearer k3y", "Content-Type": "application/json"}


def silent(x):
    x.until_client_leaves()


def silent_body(x):
    x.head(200, {"content-length": "9"})
    x.until_client_leaves()


@pytest.mark.parametrize("answer", [silent, silent_body])
def test_a_silent_endpoint_is_a_timeout(server, post, answer):
    server.play(answer)
    with pytest.raises(EndpointTimeoutError, match="sent no more data after"):
        post(server.url, limits=Limits(read_timeout_s=0.1))
    assert server.client_left.wait(HANG_S)


def dripping_headers(x):
    x.send(b"HTTP/1.1 200 OK\r\n")
    x.drip(b"x-header: value\r\n")


def dripping_body(x):
    x.head(200, {"content-length": "100000"})
    x.drip(b"x")


def dripping_chunk_size(x):
    x.head(200, {"transfer-encoding": "chunked"})
    x.drip(b"0")


def dripping_error(x):
    x.head(500)
    x.drip(b"x")


@pytest.mark.parametrize("answer", [dripping_headers, dripping_body, dripping_chunk_size, silent])
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_the_deadline_ends_slow_responses(request, new_server, post, trusted, answer, kind):
    """The timeout of a socket starts again with each byte, so it would never end."""
    server = request.getfixturevalue("secure") if kind == "tls" else new_server()
    server.play(answer)
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 0.5 s"):
        post(server.url, deadline_s=0.5)


def test_the_deadline_ends_a_slow_error_body(server, post):
    server.play(dripping_error)
    with pytest.raises(ServerError):
        post(server.url, deadline_s=0.5)


def test_no_request_is_sent_after_the_deadline(server, post):
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 0"):
        post(server.url, deadline_s=0)
    assert server.connections == 0


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_another_thread_can_end_a_wait(request, new_server, trusted, kind):
    server = request.getfixturevalue("secure") if kind == "tls" else new_server()
    server.play(silent)
    transport, deadline = Transport(server.url), Deadline(HANG_S * 10)
    failed = []

    def call():
        try:
            transport.post(b"{}", HEADERS, Limits(), deadline)
        except EndpointTimeoutError as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    time.sleep(0.05)  # until the thread waits for the answer
    deadline.cancel()
    thread.join(HANG_S)
    assert len(failed) == 1
    assert server.client_left.wait(HANG_S)
    transport.close()
