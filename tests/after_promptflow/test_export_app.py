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
]


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


def test_outputs_that_json_does_not_have_are_an_error(tmp_path):
    folder = tmp_path / "flow"
    code = (
        "from phi3_tools.flow import tool\n\n"
        "VALUES = {'number': float('nan'), 'set': {1}, 'text': 'ü'}\n\n\n"
        "@tool\ndef value(kind: str):\n    return VALUES[kind]\n"
    )
    definition = {
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
    folder.mkdir()
    (folder / "value.py").write_text(code)
    (folder / "flow.dag.yaml").write_text(json.dumps(definition))
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
