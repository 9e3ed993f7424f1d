"""The spans of lines and nodes: which there are, how they nest, and that they contain no texts."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from echo_endpoint import KEY, echo_endpoint
from engine_parity import write_flow
from phi3_ops import paths
from phi3_tools.flow import Engine, load_flow
from phi3_tools.flow.spans import trace

ASYNC = (
    "from phi3_tools.flow import tool\n@tool\nasync def later(text):\n    return 1 / len(text)\n"
)


@pytest.fixture
def exported(monkeypatch):
    """Return a function that returns the ended spans by name; the process gets no provider."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    provider.shutdown()


def parents(spans):
    names = {span.context.span_id: name for name, span in spans.items()}
    return {name: span.parent and names[span.parent.span_id] for name, span in spans.items()}


def test_a_call_is_within_its_node_and_the_node_within_its_line(exported):
    with echo_endpoint() as server:
        server.may_finish.set()
        connection = {"endpoint": server.url, "key": KEY}
        with Engine(load_flow(paths.FLOWS / "chat"), {"phi3": connection}) as engine:
            engine.run({"question": "a secret question"})
    spans = exported()
    assert parents(spans) == {"chat": "node chat", "node chat": "flow chat", "flow chat": None}
    assert spans["node chat"].attributes == {"phi3.node": "chat"}
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_a_failed_node_and_its_line_have_the_class_of_the_error(exported, tmp_path):
    node = {"name": "later", "type": "python", "source": {"type": "code", "path": "later.py"}}
    definition = {
        "inputs": {"text": {"type": "string"}},
        "outputs": {"out": {"type": "string", "reference": "${later.output}"}},
        "nodes": [{**node, "inputs": {"text": "${inputs.text}"}}],
    }
    flow = load_flow(write_flow(tmp_path / "odd", definition, later__py=ASYNC))
    with Engine(flow, {}) as engine:
        assert asyncio.run(engine.arun({"text": ""})).error is not None
        assert engine.run({"text": ""}).error is not None
    spans = exported()
    assert parents(spans) == {"node later": "flow odd", "flow odd": None}
    for span in spans.values():
        assert span.attributes["error.type"] == "ZeroDivisionError"
        assert not span.status.is_ok and not span.events


def test_the_aggregation_has_a_span(exported):
    with Engine(load_flow(paths.FLOWS / "eval"), {}) as engine:
        line = engine.run({"answer": "a", "ground_truth": "a"})
        engine.aggregate([line])
    names = exported()
    assert "aggregation eval" in names
    assert any(parent == "aggregation eval" for parent in parents(names).values())
