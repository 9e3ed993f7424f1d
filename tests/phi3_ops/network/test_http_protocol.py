"""Requests of which the rest is not HTTP: one answer, and no error in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvicorn
from uvicorn.server import ServerState

from phi3_ops.network.http_protocol import HttpProtocol

HANG_S = 20
HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_A_CHUNK = b"2\r\nabxx\r\n0\r\n\r\n"


async def answer_at_once(scope, receive, send):
    await send(
        {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def begin_an_answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await receive()
    await send({"type": "http.response.body", "body": b"y"})


async def answer_after_the_body(scope, receive, send):
    await asyncio.sleep(0.1)
    await answer_at_once(scope, receive, send)


def exchange(app, *parts):
    """Send parts of a request; return everything that the server sends."""

    async def run():
        config = uvicorn.Config(app, http=HttpProtocol, ws="none", log_config=None)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.1)
            answer = await asyncio.wait_for(reader.read(), HANG_S)
            writer.close()
            await asyncio.sleep(0.2)
        assert not state.tasks
        return answer

    return asyncio.run(run())


@pytest.mark.finding(
    24,
    "a request that begins as HTTP and goes on as something else",
    "one 400, and no traceback in the log",
)
@pytest.mark.parametrize(
    ("app", "parts", "status"),
    [
        (answer_after_the_body, (HEAD + NOT_A_CHUNK,), b"400"),
        (answer_at_once, (HEAD, NOT_A_CHUNK), b"401"),
        (begin_an_answer, (HEAD, NOT_A_CHUNK), b"200"),
    ],
)
def test_a_request_that_stops_being_http_has_one_answer(app, parts, status, caplog):
    answer = exchange(app, *parts)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
