"""A served flow gives the answers and statuses of Prompt flow's own serving app."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flow_folders import write_echo_flow
from phi3_ops.pf.serving import create_flow_app
from phi3_tools.flow import Engine, load_flow
from phi3_tools.flow.asgi import ScoreApp

TOOL = """\
from promptflow.core import tool


@tool(streaming_option_parameter="stream")
def echo(text: str, number: int, fault: str = "", stream: bool = False):
    if fault == "value":
        raise ValueError("asked to fail")
    if fault == "system":
        from promptflow.exceptions import SystemErrorException
        raise SystemErrorException(message="asked to fail")
    if fault == "object":
        return object()
    if stream and fault != "whole":
        return (piece + " " for piece in text.split())
    return text
"""
DAG = """\
inputs:
  text: {type: string, description: What to say}
  number: {type: int, default: 7}
  fault: {type: string, default: ""}
  items: {type: list, default: []}
  thing: {type: object, default: {}}
outputs:
  text: {type: string, reference: "${echo.output}", is_chat_output: true}
  number: {type: int, reference: "${inputs.number}"}
  items: {type: list, reference: "${inputs.items}"}
nodes:
- name: echo
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${inputs.text}", number: "${inputs.number}", fault: "${inputs.fault}"}
"""
ONE = """\
inputs: {text: {type: string}}
outputs: {text: {type: string, reference: "${inputs.text}"}}
nodes:
- name: unused
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${inputs.text}", number: 1}
"""


@dataclass
class Answer:
    """The answer of an ASGI app."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self) -> Any:
        """The error's code, or None."""
        try:
            return json.loads(self.body).get("error", {}).get("code")
        except ValueError:
            return None


def ask(app: Any, path: str, body: bytes = b"", accept: str | None = None) -> Answer:
    """Send one request to an ASGI app, and return its answer."""
    answer, sent = Answer(), False
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"accept", accept.encode())] if accept else []
    method = "POST" if path in ("/score", "/feedback") else "GET"
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "scheme": "http"}
    scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "client": ("x", 1)}
    scope |= {"raw_path": path.encode(), "server": ("localhost", 80), "asgi": {"version": "3.0"}}

    async def receive():
        nonlocal sent
        if sent:
            await asyncio.sleep(60)
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    return answer


@pytest.fixture(scope="module", params=[DAG, ONE], ids=["many", "one"])
def apps(request, tmp_path_factory):
    folder = write_echo_flow(tmp_path_factory.mktemp("served") / "echo", TOOL)
    (folder / "flow.dag.yaml").write_text(request.param)
    with Engine(load_flow(folder)) as engine:
        yield ScoreApp(engine, "1.0"), create_flow_app(folder)


SSE, JSON, BOTH = "text/event-stream", "application/json", "text/event-stream, application/json"
BODIES = [
    {"text": "one two ü"},
    {"text": "one two", "number": 9, "items": [1, {"a": None}], "further": True},
    {"text": "one two", "fault": "whole"},
    {"text": "x", "number": "8", "items": '["a"]', "thing": '{"b": 1}'},
    {"text": 5, "number": 2.7},
    {"text": "x", "number": "many"},
    {"text": "x", "items": "[", "thing": 3},
    {"text": "x", "fault": "value"},
    {"text": "x", "fault": "system"},
    {"number": 1},
    {},
    None,
]


CASES = [
    *((number, accept) for number in range(len(BODIES)) for accept in (None, SSE)),
    *(
        (number, accept)
        for number in (0, 2)
        for accept in (JSON, "application/*", BOTH, "text/html")
    ),
]


@pytest.mark.parametrize(("number", "accept"), CASES)
def test_score_answers_as_prompt_flow(apps, number, accept):
    body = BODIES[number]
    content = b"just text" if body is None else json.dumps(body).encode()
    ours, theirs = (ask(app, "/score", content, accept) for app in apps[:2])
    assert (ours.status, ours.code) == (theirs.status, theirs.code), (ours.body, theirs.body)
    if ours.status == 200:
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        assert ours.body == theirs.body
    assert set(json.loads(ours.body)["error"]) == {"code", "message"} if ours.code else True


@pytest.mark.parametrize("apps", [DAG], ids=["many"], indirect=True)  # the other has no such input
def test_an_answer_that_is_not_json_is_an_error_of_the_server(apps):
    app = apps[0]
    answer = ask(app, "/score", json.dumps({"text": "x", "fault": "object"}).encode())
    assert (answer.status, answer.code) == (500, "SystemError")


def test_the_description_is_prompt_flows(apps):
    ours, theirs = (json.loads(ask(app, "/swagger.json").body) for app in apps[:2])
    assert ours == theirs


def test_the_other_routes_have_prompt_flows_shapes(apps):
    for path in ("/health", "/version", "/feedback"):
        ours, theirs = (ask(app, path, b'{"rating": 1}') for app in apps[:2])
        assert ours.status == theirs.status == 200
        ours_json, theirs_json = json.loads(ours.body), json.loads(theirs.body)
        for content in (ours_json, theirs_json):
            content.pop("version", None)
        assert ours_json == theirs_json


def test_a_flow_without_inputs_ignores_the_body(tmp_path: Path):
    folder = write_echo_flow(tmp_path / "none", TOOL)
    dag = "outputs: {text: {type: string, reference: '${echo.output}'}}\nnodes:\n- name: echo\n"
    dag += "  type: python\n  source: {type: code, path: echo.py}\n  inputs: {text: a, number: 1}\n"
    (folder / "flow.dag.yaml").write_text(dag)
    with Engine(load_flow(folder)) as engine:
        answer = ask(ScoreApp(engine, "1.0"), "/score", b"{")
    assert json.loads(answer.body) == {"text": "a"}


WAITING = """\
from pathlib import Path

from phi3_tools.flow import tool


@tool(streaming_option_parameter="stream")
def echo(text: str, stream: bool = False):
    def pieces():
        try:
            while True:
                yield "again "
        finally:
            Path(text).touch()
    return pieces()
"""


def test_a_client_that_leaves_ends_the_stream(tmp_path: Path):
    folder = write_echo_flow(tmp_path / "waiting", WAITING)
    with Engine(load_flow(folder)) as engine:
        app = ScoreApp(engine, "1.0")
        left = tmp_path / "left"
        body = json.dumps({"text": str(left)}).encode()
        messages: list[Any] = [{"type": "http.request", "body": body}]
        received = threading.Event()

        async def receive():
            if messages:
                return messages.pop()
            while not received.is_set():
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body"):
                received.set()

        headers = [(b"accept", SSE.encode())]
        scope = {"type": "http", "method": "POST", "path": "/score", "headers": headers}
        asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))
    deadline = time.monotonic() + 30
    while not left.exists():  # the thread that reads a piece ends the generator
        assert time.monotonic() < deadline
        time.sleep(0.01)
