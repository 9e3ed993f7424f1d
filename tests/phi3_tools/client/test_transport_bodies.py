"""Bodies of responses against real sockets: complete, broken, too large."""

from __future__ import annotations

import gzip
import socket

import pytest

from phi3_tools import (
    BadAnswerError,
    ConnectionLostError,
    Limits,
    ServerError,
)
from phi3_tools.client.transport import ERROR_BODY_BYTES

HANG_S = 30
HEADERS = {"Authorization": "Bearer k3y", "Content-Type": "application/json"}


def chunked(x):
    x.head(200, {"transfer-encoding": "chunked"})
    for piece in (b"[1", b", 2", b"]"):
        x.chunk(piece)
    x.end_chunks()


def until_closed(x):
    x.head(200)
    x.send(b"[1, 2]")
    x.hang_up()


def zipped(x):
    x.respond(gzip.compress(b"[1, 2]"), headers={"content-encoding": "gzip"})


def zipped_chunks(x):
    x.head(200, {"transfer-encoding": "chunked", "content-encoding": "gzip"})
    for byte in gzip.compress(b"[1, 2]"):
        x.chunk(bytes([byte]))
    x.end_chunks()


@pytest.mark.parametrize("answer", [chunked, until_closed, zipped, zipped_chunks])
def test_bodies(server, post, answer):
    server.play(answer)
    assert post(server.url) == post(server.url) == b"[1, 2]"
    assert server.connections == (2 if answer is until_closed else 1)


def test_a_large_body(server, post):
    server.give(200, b"x" * 5_000_000)
    assert post(server.url) == b"x" * 5_000_000


def short(x):
    x.head(200, {"content-length": "100"})
    x.send(b"[1")
    x.hang_up()


def cut_chunk(x):
    x.head(200, {"transfer-encoding": "chunked"})
    x.send(b"10\r\nhalf")
    x.hang_up()


def missing_last_chunk(x):
    x.head(200, {"transfer-encoding": "chunked"})
    x.chunk(b"[1, 2]")
    x.hang_up()


def bad_chunk_size(x):
    x.head(200, {"transfer-encoding": "chunked"})
    x.send(b"zz\r\n")
    x.hang_up()


def bad_gzip(x):
    x.respond(b"not gzip at all", headers={"content-encoding": "gzip"})


def nothing(x):
    x.hang_up()


def not_http(x):
    x.send(b"SSH-2.0-OpenSSH\r\n")
    x.hang_up()


def reset(x):
    # With a linger time of 0, closing sends a reset.
    x.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    x.hang_up()


@pytest.mark.parametrize(
    "answer",
    [short, cut_chunk, missing_last_chunk, bad_chunk_size, bad_gzip, nothing, not_http, reset],
)
def test_a_broken_answer_is_a_lost_connection(server, post, answer):
    server.play(answer)
    with pytest.raises(ConnectionLostError, match="broke before the answer was complete") as caught:
        post(server.url)
    assert "k3y" not in str(caught.value)


def test_an_oversized_answer_is_refused(server, post):
    server.give(200, b"x" * 100_001)
    assert len(post(server.url, limits=Limits(max_answer_bytes=100_001))) == 100_001
    with pytest.raises(BadAnswerError, match="longer than 100000 bytes.*max_answer_bytes"):
        post(server.url, limits=Limits(max_answer_bytes=100_000))


def test_an_answer_that_unpacks_to_too_many_bytes_is_refused(server, post):
    server.give(200, gzip.compress(bytes(50_000_000)), {"content-encoding": "gzip"})
    with pytest.raises(BadAnswerError, match="longer than"):
        post(server.url, limits=Limits(max_answer_bytes=1_000_000))


def test_an_endless_error_body_is_cut(server, post):
    def endless(x):
        x.head(500)
        for _ in range(1_000_000):
            x.send(b"x" * ERROR_BODY_BYTES)

    server.play(endless)
    with pytest.raises(ServerError, match="xxx"):
        post(server.url)


def test_a_broken_error_body_leaves_the_status(server, post):
    def answer(x):
        x.head(500, {"content-length": "100", "x-ms-request-id": "r-1"})
        x.send(b"half")
        x.hang_up()

    server.play(answer)
    with pytest.raises(ServerError) as caught:
        post(server.url)
    assert caught.value.request_id == "r-1"
