"""The number of connections to a server, and the time in which a request must arrive."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvicorn
from uvicorn.server import ServerState

from phi3_ops.network.bounded_protocol import BoundedProtocol

REQUEST_S = 0.3
HANG_S = 20
REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"


class ShortProtocol(BoundedProtocol):
    request_s = REQUEST_S
    max_connections = 3


async def echo(scope, receive, send):
    """Answer with the body, after the time in which a request must arrive."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await asyncio.sleep(2 * REQUEST_S if body == b"ab" else 0)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope, receive, send):
    """Answer without reading the body."""
    await send(
        {"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


def run(client, app=echo):
    """Run a client, which gets the port, against a server; return its result and the state."""

    async def serve():
        config = uvicorn.Config(app, http=ShortProtocol, ws="none", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ShortProtocol(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            result = await asyncio.wait_for(client(port), HANG_S)
            await asyncio.sleep(0.05)
        return result, state

    return asyncio.run(serve())


def answer_to(*parts, pause=0.0, app=echo):
    """The complete answer to the parts of a request, and the seconds until the connection ended."""

    async def client(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.monotonic()

        async def write():
            for part in parts:
                writer.write(part)
                await asyncio.sleep(pause)

        writing = asyncio.create_task(write())
        answer = await reader.read()
        writing.cancel()
        writer.close()
        return answer, time.monotonic() - start

    (answer, seconds), state = run(client, app)
    assert not state.connections
    assert not state.tasks
    return answer, seconds


@pytest.mark.finding(
    13,
    "1,500 half-sent requests to `phi3 serve`",
    "408 after 20 seconds, and at most 256 connections",
)
@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"POST / HT",),
        (REQUEST[:40],),
        (REQUEST[:-1],),
        # One byte at a time: each of them ends uvicorn's own time limit.
        [bytes([byte]) for byte in REQUEST[:40]],
        [b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n", *[b"x"] * 40],
        [
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            *[b"1\r\nx\r\n"] * 40,
        ],
    ],
)
def test_a_request_that_does_not_arrive_is_ended(parts):
    answer, seconds = answer_to(*parts, pause=0.05)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert answer.endswith(
        b'{"error": {"code": "UserError", "message": "the request did not arrive within 0.3 seconds"}}'
    )
    assert seconds < 10 * REQUEST_S


def test_a_refused_body_that_does_not_arrive_is_ended():
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n"
    answer, seconds = answer_to(head, *[b"x"] * 40, pause=0.05, app=refuse)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"408" not in answer
    assert seconds < 10 * REQUEST_S


def test_the_second_request_of_a_connection_has_the_same_limit():
    second = [bytes([byte]) for byte in REQUEST[:40]]
    answer, seconds = answer_to(REQUEST.replace(b"ab", b"cd"), *second, pause=0.05)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert seconds < 10 * REQUEST_S


def test_an_answer_may_take_longer():
    """The client sends a second request after it."""
    last = REQUEST.replace(b"host: a", b"host: a\r\nconnection: close")
    answer, seconds = answer_to(REQUEST, last, pause=0.8)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"408" not in answer
    assert seconds > 4 * REQUEST_S


def test_a_request_in_pieces_is_answered():
    pieces = [REQUEST[:9], REQUEST[9:30], REQUEST[30:-1], b"b"]
    close = [pieces[0], pieces[1].replace(b"host", b"connection: close\r\nhost"), *pieces[2:]]
    answer, _ = answer_to(*close, pause=0.01)
    assert answer.endswith(b"\r\n\r\nab")


CLOSING = REQUEST.replace(b"host", b"connection: close\r\nhost")


@pytest.mark.finding(
    13,
    "half-sent requests occupy all connections of `phi3 serve`",
    "a new connection ends the oldest half-sent request",
)
def test_a_new_connection_ends_the_one_that_has_been_arriving_for_the_longest_time():
    async def client(port):
        halves = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST[:-1])
            halves.append((reader, writer))
            await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CLOSING.replace(b"ab", b"cd"))
        answer = await reader.read()
        refusals = [await half.read() for half, _ in halves]
        for _, each in [(None, writer), *halves]:
            each.close()
        return answer, refusals

    (answer, refusals), state = run(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert refusals[0].startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"the server has too many connections" in refusals[0]
    assert all(refusal.startswith(b"HTTP/1.1 408 ") for refusal in refusals[1:])
    assert not state.connections


def test_a_new_connection_ends_the_one_that_has_been_idle_for_the_longest_time():
    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST.replace(b"ab", b"cd"))
        await reader.readuntil(b"cd")
        return reader, writer

    async def client(port):
        idle = [await ask(port) for _ in range(3)]
        half = (await asyncio.open_connection("127.0.0.1", port))[1]
        half.write(REQUEST[:-1])
        others = [await ask(port) for _ in range(2)]
        ended = [await reader.read() for reader, _ in idle]
        for _, writer in [*idle, (None, half), *others]:
            writer.close()
        return ended

    ended, _ = run(client)
    assert ended == [b"", b"", b""]


def test_a_large_request_may_arrive_slowly():
    size = ShortProtocol.min_rate
    head = f"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
    pieces = [b"x" * (size // 16)] * 16
    answer, seconds = answer_to(head.encode(), *pieces, pause=REQUEST_S / 8)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\n" + b"x" * size)
    assert seconds > REQUEST_S


def test_a_new_connection_does_not_end_requests_that_are_being_answered():
    async def client(port):
        busy = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(CLOSING)
            busy.append((reader, writer))
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        refusal = await reader.read()
        answers = [await each.read() for each, _ in busy]
        for _, each in [(None, writer), *busy]:
            each.close()
        return refusal, answers

    (refusal, answers), state = run(client)
    assert refusal.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)
    assert not state.connections
