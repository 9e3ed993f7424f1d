"""The OpenTelemetry span of a call: its attributes, and what it must not contain."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from phi3_tools import Params, ServerError, ToolCall
from phi3_tools.client.spans import CAPTURE_VARIABLE, trace

QUESTION = "Who founded Microsoft? 🙂"
ANSWER = {
    "output": "Bill Gates",
    "finish_reason": "stop",
    "model": "tiny",
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


@pytest.fixture
def exported(monkeypatch):
    """Return the exporter of this test's spans; the process gets no provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter.get_finished_spans
    provider.shutdown()


def test_attributes_follow_the_conventions(server, connect, exported):
    server.json(ANSWER, headers={"x-ms-request-id": "r-1"})
    params = Params(max_new_tokens=9, temperature=0.5, top_p=0.9, stop="END", seed=3)
    connect(server, model="phi3").chat(QUESTION, params)
    (span,) = exported()
    assert span.name == "chat phi3"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.inference",
        "gen_ai.request.model": "phi3",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "azure.service.request.id": "r-1",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "phi3.contract": "chat",
        "phi3.attempts": 1,
    }


@pytest.mark.parametrize(("value", "captured"), [(None, False), ("false", False), ("True", True)])
def test_message_texts_only_if_requested(server, connect, exported, monkeypatch, value, captured):
    if value:
        monkeypatch.setenv(CAPTURE_VARIABLE, value)
    server.json(ANSWER)
    connect(server).chat(
        [{"role": "system", "content": "s"}, {"role": "user", "content": QUESTION}]
    )
    (span,) = exported()
    contents = {name: value for name, value in span.attributes.items() if name.endswith("messages")}
    if not captured:
        assert contents == {}
        assert "Gates" not in span.to_json()
        return
    assert json.loads(contents["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "s"}]},
        {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
    ]
    assert json.loads(contents["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Bill Gates"}]}
    ]


def test_tool_calls_are_parts_of_messages(server, connect, exported, monkeypatch):
    monkeypatch.setenv(CAPTURE_VARIABLE, "true")
    call = ToolCall("c1", "weather", '{"key": "k3y-of-the-endpoint"}').as_dict()
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    server.json({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    chat = [{"role": "user", "content": "Hi"}, {**message, "tool_calls": [{**call, "id": "c0"}]}]
    chat.append({"role": "tool", "tool_call_id": "c0", "content": "sunny"})
    connect(server, contract="openai").chat(chat)
    (span,) = exported()
    _, asks, result = json.loads(span.attributes["gen_ai.input.messages"])
    assert asks["parts"][0]["type"] == "tool_call" and asks["parts"][0]["name"] == "weather"
    assert result["parts"] == [{"type": "tool_call_response", "id": "c0", "response": "sunny"}]
    assert "k3y" not in span.attributes["gen_ai.output.messages"]
    assert "tool_call" in span.attributes["gen_ai.output.messages"]


def test_an_error_is_recorded_by_its_class(server, connect, exported, waits):
    server.json({"error": f"cannot answer {QUESTION}"}, status=500)
    with pytest.raises(ServerError):
        connect(server).chat(QUESTION)
    (span,) = exported()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "ServerError"
    assert "founded" not in span.to_json()


def test_a_streams_span_ends_with_the_stream(server, connect, exported):
    server.events({"output": "Bill"}, {"output": " Gates", **{"finish_reason": "stop"}}, "[DONE]")
    stream = connect(server).stream(QUESTION)
    assert next(stream) == "Bill"
    assert exported() == ()
    assert list(stream) == [" Gates"]
    (span,) = exported()
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_leaving_a_stream_is_not_an_error(server, connect, exported):
    server.events({"output": "Bill"}, {"output": " Gates"}, "[DONE]")
    with connect(server).stream(QUESTION) as stream:
        next(stream)
    (span,) = exported()
    assert span.status.status_code is StatusCode.UNSET


def test_an_async_call_is_a_child_of_its_callers_span(server, connect, exported):
    import asyncio

    server.json(ANSWER)

    async def ask():
        with trace.get_tracer("mine").start_as_current_span("outer"):
            await connect(server).achat(QUESTION)

    asyncio.run(ask())
    call, outer = exported()
    assert call.parent.span_id == outer.context.span_id


def test_a_call_works_without_a_provider(server, connect):
    server.json(ANSWER)
    assert connect(server).chat(QUESTION).text == "Bill Gates"


def test_opentelemetry_may_be_missing(server):
    """The test needs a new interpreter, because OpenTelemetry is imported once per process."""
    server.json(ANSWER)
    code = f"""
import sys
sys.modules["opentelemetry"] = None
from phi3_tools import Phi3Client
from phi3_tools.client import spans
assert spans.trace is None
with Phi3Client.from_connection({{"endpoint": {server.url!r}, "key": "k"}}) as client:
    print(client.chat("Hi").text, "".join(client.stream("Hi")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "Bill Gates Bill Gates\n", done.stderr
