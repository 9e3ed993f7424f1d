"""Async streams: they end in a reply, and leaving one early closes its connection."""

from __future__ import annotations

import asyncio
import gc

import pytest

from async_calls import HANG_S, cancelled, delta, endless, run, silent
from phi3_tools import AsyncStream, ConfigError, Params, Usage

USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def test_an_async_stream_ends_in_a_reply(server, connect):
    last = {"choices": [], "usage": USAGE, "model": "tiny"}
    server.events(delta("Bill "), delta("Gates"), END, last, "[DONE]")
    client = connect(server, contract="openai")

    async def ask():
        async with client.astream("Who?", Params(max_new_tokens=9)) as stream:
            assert isinstance(stream, AsyncStream)
            assert stream.reply is None
            pieces = [piece async for piece in stream]
        assert [piece async for piece in stream] == []
        return pieces, stream.reply

    pieces, reply = run(ask())
    assert pieces == ["Bill ", "Gates"]
    assert (reply.text, reply.finish_reason, reply.usage) == ("Bill Gates", "stop", Usage(5, 2))


@pytest.mark.parametrize("answer", [endless, silent])
def test_cancelling_an_async_stream_closes_its_connection(server, connect, answer):
    """This holds before the first piece and after it."""
    server.play(answer)
    client = connect(server, contract="openai")

    async def consume():
        async for _ in client.astream("Who?"):
            pass

    async def ask():
        await cancelled(asyncio.create_task(consume()), server)
        assert await asyncio.to_thread(server.client_left.wait, HANG_S)

    run(ask())


def test_leaving_an_async_stream_closes_its_connection(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")

    async def leave():
        async with client.astream("Who?") as stream:
            async for piece in stream:
                assert piece == "Bill"
                break
        assert stream.reply is None
        assert [piece async for piece in stream] == []

    run(leave())
    assert server.client_left.wait(HANG_S)


def test_an_async_stream_can_be_closed_without_a_block(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")

    async def leave():
        stream = client.astream("Who?")
        assert await anext(stream) == "Bill"
        await stream.aclose()
        await stream.aclose()

    run(leave())
    assert server.client_left.wait(HANG_S)


def test_an_async_stream_without_references_is_closed(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")
    assert run(anext(client.astream("Who?"))) == "Bill"
    gc.collect()
    assert server.client_left.wait(HANG_S)


def test_a_wrong_argument_of_an_async_stream_is_an_error_at_once(server, connect):
    with pytest.raises(ConfigError, match="the list of messages is empty"):
        connect(server).astream([])


def test_halves_of_a_character_in_two_events_are_joined(server, connect):
    half = {"choices": [{"delta": {"content": "x\ud83d"}}]}
    other = {"choices": [{"delta": {"content": "\ude42y"}}]}
    server.events(half, other, half, END, "[DONE]").events(half, delta("z"), half, END)
    client = connect(server, contract="openai")
    for expected in (["x", "🙂y", "x", "\ufffd"], ["x", "\ufffdz", "x", "\ufffd"]):
        stream = client.stream("Who?")
        assert list(stream) == expected
        assert stream.reply.text == "".join(expected)
        stream.reply.text.encode("utf-8")
