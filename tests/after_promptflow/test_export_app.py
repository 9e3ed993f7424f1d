"""The exported service answers as `phi3 serve` does: bodies, events and statuses."""

from __future__ import annotations

import asyncio
import importlib
import json

import httpx
import pytest

from echo_endpoint import KEY, echo_endpoint
from exports import exported
from phi3_ops import paths
from phi3_tools import ConfigError
from phi3_tools.flow import Engine, ScoreApp, line, load_flow
from phi3_tools.serving import CheckedRequests

EVENTS = {"accept": "text/event-stream"}
REQUESTS = [
    ("POST", "/score", {"question": "Hello you", "chat_history": []}, {}),
    ("POST", "/score", {"question": "Hello you"}, EVENTS),
    ("POST", "/score", {"question": "Hello you"}, {"accept": "application/json, text/plain"}),
    ("POST", "/score", {}, {}),
    ("POST", "/score", {"question": "fail"}, {}),
    ("POST", "/score", {"question": "fail"}, EVENTS),
    ("POST", "/score", {"question": "crash"}, {}),
    ("POST", "/score", {"question": "Hi", "chat_history": "no list"}, {}),
    ("POST", "/score", {"question": "Hi", "chat_history": [{"inputs": {}}]}, {}),
    ("POST", "/score", b"[1]", {}),
    ("POST", "/score", b"plain text", {}),
    ("POST", "/score", {"question": "Hi"}, {"accept": "image/png"}),
    ("GET", "/score", b"", {}),
    ("GET", "/other", b"", {}),
    ("GET", "/health", b"", {}),
    ("GET", "/version", b"", {}),
    ("GET", "/swagger.json", b"", {}),
    ("POST", "/feedback", {"rating": 5}, {}),
    ("DELETE", "/feedback", b"", {}),
    ("POST", "/score", {"question": "fail"}, {"accept": "image/png"}),
]


DEFINITION = {
    "inputs": {"kind": {"type": "string"}},
    "outputs": {"value": {"type": "object", "reference": "${value.output}"}},
    "nodes": [
        {
            "name": "value",
            "type": "python",
            "source": {"type": "code", "path": "value.py"},
            "inputs": {"kind": "${inputs.kind}"},
        }
    ],
}


async def answers(app, requests=REQUESTS):
    """Return status, type and content of the answer to each request."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        results = []
        for method, path, body, headers in requests:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            response = await client.request(method, path, content=content, headers=headers)
            kind = response.headers["content-type"].partition(";")[0]
            results.append(
                (response.status_code, kind, response.text if "event" in kind else response.json())
            )
        return results


@pytest.fixture
def echo(monkeypatch):
    line.connection.cache_clear()
    with echo_endpoint() as server:
        server.may_finish.set()
        for name, value in {
            "ENDPOINT": server.url,
            "KEY": KEY,
            "CONTRACT": "chat",
            "MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(f"PHI3_CONNECTION_PHI3_{name}", value)
        yield server
    line.connection.cache_clear()


@pytest.mark.parametrize("form", ["agent-framework", "fastapi"])
def test_each_answer_is_that_of_phi3_serve(form, echo, tmp_path):
    flow = load_flow(paths.FLOWS / "chat")
    with Engine(flow, line.connection) as engine:
        types = {name: item.type for name, item in flow.inputs.items()}
        app = CheckedRequests(ScoreApp(engine, str(flow.content["tags"]["version"])), types)
        expected = asyncio.run(answers(app))
    with exported("chat", form, tmp_path / "out"):
        received = asyncio.run(answers(importlib.import_module("app").app))
    for request, result, wanted in zip(REQUESTS, received, expected):
        assert (request, *result[:2]) == (request, *wanted[:2])
        if result[0] == 200:
            assert result[2] == wanted[2], request
        else:
            assert result[2]["error"]["code"] == wanted[2]["error"]["code"], request
    assert received[1][2] == 'data: {"answer": "Hello"}\n\ndata: {"answer": "you"}\n\n'


@pytest.mark.parametrize("form", ["agent-framework", "fastapi"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_leaves_ends_its_line(form, accept, tmp_path):
    """The node waits until its line is cancelled, and says so."""
    flow = tmp_path / "flow"
    flow.mkdir()
    code = (
        "import asyncio\n\nfrom phi3_tools.flow import tool\n\nEVENTS = []\n\n\n"
        "@tool\nasync def value(kind: str):\n    EVENTS.append('begun')\n"
        "    try:\n        await asyncio.sleep(60)\n"
        "    finally:\n        EVENTS.append('ended')\n"
    )
    (flow / "value.py").write_text(code)
    (flow / "flow.dag.yaml").write_text(json.dumps(DEFINITION))
    body = [{"type": "http.request", "body": b'{"kind": "x"}', "more_body": False}]
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http"},
        **{"path": "/score", "raw_path": b"/score", "query_string": b"", "root_path": ""},
        "headers": [(b"host", b"localhost"), (b"accept", accept.encode())],
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}},
    }

    async def leave(app, events):
        async def receive():
            while not body and "begun" not in events:
                await asyncio.sleep(0.01)
            return body.pop() if body else {"type": "http.disconnect"}

        async def send(message):
            pass

        await asyncio.wait_for(app(scope, receive, send), 30)
        async with asyncio.timeout(30):
            while "ended" not in events:
                await asyncio.sleep(0.01)

    with exported(flow, form, tmp_path / "out"):
        app = importlib.import_module("app").app
        asyncio.run(leave(app, importlib.import_module("value").EVENTS))


def test_outputs_that_json_does_not_have_are_an_error(tmp_path):
    folder = tmp_path / "flow"
    code = (
        "from phi3_tools.flow import tool\n\n"
        "VALUES = {'number': float('nan'), 'set': {1}, 'text': 'ü'}\n\n\n"
        "@tool\ndef value(kind: str):\n    return VALUES[kind]\n"
    )
    folder.mkdir()
    (folder / "value.py").write_text(code)
    (folder / "flow.dag.yaml").write_text(json.dumps(DEFINITION))
    requests = [("POST", "/score", {"kind": kind}, {}) for kind in ("number", "set", "text", "x")]
    requests += [("POST", "/score", b"text", {})]  # the only input, as plain text
    with Engine(load_flow(folder)) as engine:
        app = CheckedRequests(ScoreApp(engine, ""), {"kind": "string"})
        expected = asyncio.run(answers(app, requests))
    with exported(folder, "fastapi", tmp_path / "out"):
        received = asyncio.run(answers(importlib.import_module("app").app, requests))
    assert [status for status, _, _ in expected] == [500, 500, 200, 400, 200]
    assert received == expected


def test_the_service_does_not_start_without_its_connection(tmp_path):
    line.connection.cache_clear()

    async def start(app):
        async with app.router.lifespan_context(app):
            pass

    with exported("chat", "fastapi", tmp_path / "out"):
        app = importlib.import_module("app").app
        with pytest.raises(ConfigError, match="the connection 'phi3' does not exist"):
            asyncio.run(start(app))
