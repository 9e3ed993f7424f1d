"""Our `tool` and `trace` are accepted by promptflow, and traced by it when it runs them."""

from __future__ import annotations

import inspect

import pytest
from promptflow._core.tool_meta_generator import is_tool as promptflow_is_tool
from promptflow.core import tool as promptflow_tool

from phi3_tools.flow import decorators


def functions():
    def plain(a: int, b: str = "x") -> str:
        """Return both."""
        return f"{a}{b}"

    async def waiting(a):
        return a

    def generator(a):
        yield a

    return [plain, waiting, generator]


@pytest.mark.parametrize("function", functions(), ids=lambda function: function.__name__)
def test_a_tool_looks_like_one_of_promptflow(function):
    options = {"name": "n", "streaming_option_parameter": "a", "icon": "i.png"}
    ours, theirs = decorators.tool(**options)(function), promptflow_tool(**options)(function)
    assert promptflow_is_tool(ours) and decorators.is_tool(theirs)
    marks = {name for name in vars(theirs) if name != "__original_function"}
    assert {name: getattr(ours, name) for name in marks} == {
        name: getattr(theirs, name) for name in marks
    }
    assert inspect.signature(ours) == inspect.signature(function)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


def test_the_decorator_works_with_and_without_parentheses():
    assert decorators.tool(functions()[0])(1) == "1x"
    assert decorators.tool()(functions()[0])(1, "y") == "1y"
    assert decorators.trace(functions()[0])(2) == "2x"


def test_promptflow_traces_our_tools(monkeypatch):
    from promptflow.tracing._tracer import Tracer

    monkeypatch.setenv("PF_DISABLE_TRACING", "false")
    traced = decorators.tool(functions()[0])
    Tracer.start_tracing("run", "node")
    assert traced(1) == "1x"
    (trace,) = Tracer.end_tracing("run")
    assert trace["name"].endswith("plain")
    assert (trace["inputs"], trace["output"]) == ({"a": 1}, "1x")


def test_a_metric_is_logged_in_an_aggregation_only():
    decorators.log_metric("nowhere", 1)
    with decorators.collect_metrics() as metrics:
        from promptflow.core import log_metric

        decorators.log_metric("ours", 1)
        log_metric("theirs", 2, variant_id="v")
    log_metric("after", 3)
    assert metrics == {"ours": 1, "theirs": 2}
