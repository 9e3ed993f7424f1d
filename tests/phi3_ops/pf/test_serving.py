"""Prompt flow's serving app for a flow: its line execution can be wrapped, its streams closed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from flow_folders import write_echo_flow
from phi3_ops.pf import expectations
from phi3_ops.pf.serving import (
    close_tool_stream,
    create_flow_app,
    shared_tool_threads,
    wrap_line_execution,
)

TOOL = """\
import threading
from promptflow.core import tool


@tool
def echo(text: str) -> str:
    return f"{text} on {threading.current_thread().name}"
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFLOW_PROJECT_PATH", "before")
    yield create_flow_app(write_echo_flow(tmp_path, TOOL))
    assert os.environ["PROMPTFLOW_PROJECT_PATH"] == str(tmp_path)


def ask(app, text):
    response = TestClient(app).post("/score", json={"text": text})
    assert response.status_code == 200, response.text
    return response.json()["text"]


def test_a_flow_is_served_with_our_middlewares(app):
    assert ask(app, "hello").startswith("hello on ")
    names = [each.cls.__name__ for each in app.user_middleware]
    assert names[-2:] == ["InlineErrors", "InlineMonitor"]


def test_a_folder_without_a_flow_raises_prompt_flows_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFLOW_PROJECT_PATH", "before")
    with pytest.raises(Exception, match="flow"):
        create_flow_app(tmp_path / "nothing")


def test_the_execution_of_a_line_can_be_wrapped(app):
    def wrap(execute):
        async def wrapped(*args, **options):
            result = await execute(*args, **options)
            result.output["text"] = result.output["text"].upper()
            return result

        return wrapped

    wrap_line_execution(app, wrap)
    assert ask(app, "hello").startswith("HELLO ON ")


def test_tools_run_on_shared_threads(app):
    with shared_tool_threads(2):
        assert ask(app, "hello").startswith("hello on tool")
    assert not ask(app, "hello").startswith("hello on tool")


def test_another_prompt_flow_keeps_its_own_threads(monkeypatch):
    from promptflow.executor import _async_nodes_scheduler as scheduler

    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    with shared_tool_threads(2):
        assert scheduler.ThreadPoolExecutor is ThreadPoolExecutor


class Proxy:
    """Like Prompt flow's proxies around a generator."""

    def __init__(self, iterator):
        self._iterator = iterator


def test_a_stream_is_closed_through_prompt_flows_proxies():
    ended = []

    def pieces():
        try:
            yield "one"
            yield "two"
        finally:
            ended.append(True)

    stream = pieces()
    next(stream)
    close_tool_stream(Proxy(Proxy(stream)))
    assert ended == [True]
    close_tool_stream(iter(["has no close"]))
