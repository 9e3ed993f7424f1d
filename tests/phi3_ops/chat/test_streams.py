"""Streams that end when their client leaves, and the tokens at the end of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
import requests

from phi3_ops.chat.streams import DetachedStream, FlowRequest, with_detached_streams
from phi3_tools import Reply
from phi3_tools.client import Usage
from scripted_endpoint import HANG_S
from served_flow import events

USAGE = {"x-phi3-usage": "1"}


@pytest.mark.parametrize("side", ["", "/side1"])
def test_a_stream_ends_with_its_tokens_on_request(served, side):
    with served.ask("one two", side=side, stream=True, headers=USAGE) as streamed:
        *_, last = events(streamed)
    assert last == ("usage", {"prompt_tokens": 11, "completion_tokens": 2})


def test_a_whole_answer_has_no_tokens(served):
    assert served.ask("one two", headers=USAGE).json() == {"answer": "one two"}


def test_the_tokens_of_all_calls_are_added():
    request = FlowRequest()
    for reply in (
        Reply(text="a", contract="chat", usage=Usage(3, 2, 5)),
        Reply(text="b", contract="chat", usage=None),
        Reply(text="c", contract="chat", usage=Usage(10, 1, 11)),
    ):
        request.add_usage(reply)
    assert request.usage == {"prompt_tokens": 13, "completion_tokens": 3}


def test_a_client_that_leaves_ends_the_call(served, endpoint):
    endpoint.gone.clear()
    with served.ask("endless", stream=True) as streamed:
        next(streamed.iter_lines(chunk_size=1))
    assert endpoint.gone.wait(HANG_S)


def test_a_client_that_leaves_a_silent_endpoint_does_not_delay_others(served, endpoint):
    endpoint.held.add("hold on")
    endpoint.release.clear()
    with served.ask("hold on", stream=True) as streamed:
        next(streamed.iter_lines(chunk_size=1))
    # Both are answered although the endpoint does not send its last word yet.
    assert requests.get(f"{served.url}/health", timeout=HANG_S / 2).ok
    assert served.ask("next", stream=True).ok
    endpoint.release.set()


def test_many_stream_at_once(served, endpoint):
    """More streams than asyncio's own threads: each gets its first word while all are held back."""
    endpoint.held.add("one last")
    endpoint.release.clear()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(served.ask("one last", stream=True)) for _ in range(32)]
        lines = [stream.iter_lines(chunk_size=1) for stream in streams]
        assert {next(each) for each in lines} == {b'data: {"answer": "one "}'}
        endpoint.release.set()
        assert all(b'data: {"answer": "last"}' in list(each) for each in lines)


# -- detached streams --------------------------------------------------------------------------------


def test_a_closed_stream_is_closed_with_its_next_piece():
    may_go, closed = threading.Event(), threading.Event()

    def pieces():
        try:
            yield 1
            may_go.wait(HANG_S)
            yield 2
            yield 3
        finally:
            closed.set()

    async def read():
        stream = DetachedStream(pieces())
        assert await anext(stream) == 1
        stream.close()
        assert not closed.is_set()
        may_go.set()
        return [piece async for piece in stream]

    assert asyncio.run(read()) == []
    assert closed.is_set()


def test_a_streams_error_is_raised():
    def pieces():
        yield 1
        raise ValueError("told to fail")

    async def read():
        stream = DetachedStream(pieces())
        assert await anext(stream) == 1
        with pytest.raises(ValueError, match="told to fail"):
            await anext(stream)

    asyncio.run(read())


def test_outside_a_request_streams_stay_as_they_are():
    class Result:
        output = {"answer": iter("ab")}

    async def execute(*args, **kw):
        assert kw == {"sync_iterator_to_async": False}
        return Result

    result = asyncio.run(with_detached_streams(execute)())
    assert list(result.output["answer"]) == ["a", "b"]
