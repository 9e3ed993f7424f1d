"""Schemas and tool calls in streams: parsed at the end, and a call in the text is not shown."""

from __future__ import annotations

import asyncio

import pytest

from phi3_tools import InvalidAnswerError, Params
from phi3_tools.client.structured import (
    visible_pieces,
)
from structured_calls import CALL, CALL_TEXT, GOOD, QUESTION, SCHEMA, WEATHER, City, delta


@pytest.fixture
def openai(server, connect):
    return connect(server, contract="openai")


def test_a_stream_is_parsed_at_its_end(server, openai):
    server.events(delta(content=GOOD[:9]), delta(content=GOOD[9:]), delta("stop"))
    stream = openai.stream("Where?", Params(response_format=City))
    assert "".join(stream) == GOOD
    assert stream.reply.parsed == City(city="Vienna", people=2000000)


def test_a_wrong_stream_raises_at_its_end(server, openai):
    server.events(delta(content="no"), delta("stop"))
    stream = openai.stream("Where?", Params(response_format=SCHEMA))
    assert next(stream) == "no"
    with pytest.raises(InvalidAnswerError):
        next(stream)


def test_streamed_calls_are_put_together(server, openai):
    server.events(
        delta(tool_calls=[{"index": 0, "id": "call_a", "function": {"name": "weather"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "Vie'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": 'nna"}'}}]),
        delta("tool_calls"),
    )
    stream = openai.stream(QUESTION, Params(tools=[WEATHER]))
    assert list(stream) == []
    assert stream.reply.tool_calls == (CALL,)
    assert stream.reply.finish_reason == "tool_calls"


def test_an_async_stream_has_the_calls(server, openai):
    function = {"name": "weather", "arguments": CALL.arguments_json}
    server.events(delta("tool_calls", tool_calls=[{"index": 0, "id": "c", "function": function}]))

    async def read():
        async with openai.astream(QUESTION, Params(tools=[WEATHER])) as stream:
            return [piece async for piece in stream], stream.reply

    pieces, reply = asyncio.run(read())
    assert pieces == [] and reply.tool_calls[0].arguments == {"city": "Vienna"}


def test_calls_in_a_streamed_text_are_not_shown(server, connect):
    pieces = ["One ", "moment. <tool", f"_call>{CALL_TEXT[11:30]}", CALL_TEXT[30:]]
    server.events(*({"output": piece} for piece in pieces), {"finish_reason": "stop"})
    stream = connect(server, contract="chat").stream(QUESTION, Params(tools=[WEATHER]))
    assert "".join(stream) == "One moment. "
    assert stream.reply.tool_calls[0].arguments == {"city": "Vienna"}


@pytest.mark.parametrize(
    ("pieces", "visible"),
    [
        (["a <", "b"], "a <b"),
        (["a <tool", "_box>"], "a <tool_box>"),
        (["a <tool_ca"], "a <tool_ca"),
        (["<tool_call>x"], ""),
        (["<", "<tool_call>x"], "<"),
    ],
)
def test_only_a_complete_mark_begins_a_call(pieces, visible):
    assert "".join(visible_pieces(iter(pieces))) == visible
