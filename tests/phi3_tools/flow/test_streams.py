"""Streams of generators, sync and async: their pieces, their ends, and leaving them early."""

from __future__ import annotations

import asyncio

import pytest

from engine_parity import write_flow
from phi3_tools.flow import Engine, LineError, load_flow

TOOL = "from phi3_tools.flow import tool\nCLOSED = []\n"
ASYNC = TOOL + (
    "@tool\nasync def words(text):\n"
    "    try:\n"
    "        for word in text.split():\n"
    "            if word == 'fail':\n"
    "                raise ValueError(word)\n"
    "            yield word\n"
    "    finally:\n"
    "        CLOSED.append(text)\n"
)
SYNC = ASYNC.replace("async def", "def")


def engine_of(folder, code, outputs=("answer",)):
    reference = {"type": "string", "reference": "${words.output}"}
    definition = {
        "inputs": {"text": {"type": "string"}},
        "outputs": {
            **dict.fromkeys(outputs, reference),
            "text": {"type": "string", "reference": "${inputs.text}"},
        },
        "nodes": [
            {
                "name": "words",
                "type": "python",
                "source": {"type": "code", "path": "words.py"},
                "inputs": {"text": "${inputs.text}"},
            }
        ],
    }
    return Engine(load_flow(write_flow(folder, definition, words__py=code)))


def closed(engine):
    function = engine._graph.tools[0].function
    return function.__globals__.get("CLOSED", function.__wrapped__.__globals__["CLOSED"])


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "async"])
class TestStreams:
    def test_the_pieces_come_and_then_the_whole_output(self, tmp_path, code):
        with engine_of(tmp_path, code) as engine:
            stream = engine.stream({"text": "a b"})
            assert stream.result.outputs == {"text": "a b"}
            assert list(stream) == ["a", "b"]
            assert stream.result.outputs == {"text": "a b", "answer": "ab"}
            assert engine.run({"text": "a b"}).outputs["answer"] == "ab"

    def test_the_same_in_an_event_loop(self, tmp_path, code):
        async def read(engine):
            stream = await engine.astream({"text": "a b"})
            return [piece async for piece in stream], stream.result.outputs

        with engine_of(tmp_path, code) as engine:
            pieces, outputs = asyncio.run(read(engine))
        assert pieces == ["a", "b"] and outputs["answer"] == "ab"

    def test_leaving_early_ends_the_generator(self, tmp_path, code):
        async def leave(engine):
            async with await engine.astream({"text": "two b"}) as stream:
                assert await anext(stream) == "two"

        with engine_of(tmp_path, code) as engine:
            with engine.stream({"text": "one b"}) as stream:
                assert next(stream) == "one"
            assert list(stream) == []
            asyncio.run(leave(engine))
            assert closed(engine) == ["one b", "two b"]

    def test_a_failure_in_the_middle_is_raised(self, tmp_path, code):
        async def read(engine):
            stream = await engine.astream({"text": "a fail"})
            with pytest.raises(LineError):
                [piece async for piece in stream]
            return stream.result.error.codes

        with engine_of(tmp_path, code) as engine:
            stream = engine.stream({"text": "a fail"})
            assert next(stream) == "a"
            with pytest.raises(LineError, match="fail"):
                next(stream)
            assert asyncio.run(read(engine)) == ("SystemError", "ValueError")
            assert engine.run({"text": "a fail"}).error.codes == ("SystemError", "ValueError")

    def test_only_one_output_may_stream(self, tmp_path, code):
        with engine_of(tmp_path, code, outputs=("one", "two")) as engine:
            stream = engine.stream({"text": "a"})
            assert list(stream) == [] and stream.result.outputs == {}
            assert stream.result.error.code == "MultipleStreamOutputFieldsNotSupported"
