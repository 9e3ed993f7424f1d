"""Clients and Prompt flow's monitor see the same with our middlewares as with Prompt flow's."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from phi3_ops import paths
from phi3_ops.chat.app import make_flow_app
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf import expectations, serving
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.middleware import InlineErrors
from scripted_endpoint import scripted_endpoint

QUESTION = {"question": "one two", "chat_history": []}
STREAM = {"accept": "text/event-stream"}
REQUESTS = {
    "complete": ("POST", "/score", {"json": QUESTION}),
    "streamed": ("POST", "/score", {"json": QUESTION, "headers": STREAM}),
    "a stream among others": (
        "POST",
        "/score",
        {"json": QUESTION, "headers": [("accept", "text/plain"), ("accept", "text/event-stream")]},
    ),
    "with ids": (
        "POST",
        "/score",
        {"json": QUESTION, "headers": {"x-request-id": "r1", "x-ms-client-request-id": "c1"}},
    ),
    "with the client's id": (
        "POST",
        "/score",
        {"json": QUESTION, "headers": {"x-ms-client-request-id": "c2"}},
    ),
    "the endpoint refuses": ("POST", "/score", {"json": {**QUESTION, "question": "fail"}}),
    "the endpoint refuses a stream": (
        "POST",
        "/score",
        {"json": {**QUESTION, "question": "fail"}, "headers": STREAM},
    ),
    "no input": ("POST", "/score", {"json": {}}),
    "no JSON": ("POST", "/score", {"content": b"{"}),
    "no acceptable type": (
        "POST",
        "/score",
        {"json": QUESTION, "headers": {"accept": "image/png"}},
    ),
    "another method": ("GET", "/score", {}),
    "another path": ("GET", "/nothing", {}),
    "health": ("GET", "/health", {}),
    "a preflight request of another origin": (
        "OPTIONS",
        "/score",
        {"headers": {"origin": "http://a", "access-control-request-method": "POST"}},
    ),
}


class Monitored:
    """Records the calls of Prompt flow's monitor."""

    def __init__(self, app, monkeypatch):
        self.calls = []
        for name in ("start_monitoring", "finish_monitoring", "handle_error"):
            stock = getattr(app.flow_monitor, name)
            monkeypatch.setattr(app.flow_monitor, name, self._recording(name, stock, app))

    def _recording(self, name, stock, app):
        provider = app.flow_monitor.context_data_provider

        def record(*args):
            seen = [arg if isinstance(arg, int) else type(arg).__name__ for arg in args]
            if name == "finish_monitoring":
                seen += [provider.get_request_id(), provider.get_client_request_id()]
                seen += [provider.is_response_streaming(), provider.get_flow_result() is not None]
            self.calls.append((name, *seen))
            return stock(*args)

        return record


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a function that makes Prompt flow's app for flows/chat."""
    with scripted_endpoint() as endpoint:
        save_connection("middleware", {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        flow = FlowDefinition.read(paths.FLOWS / "chat")
        yield lambda: make_flow_app(flow, "middleware", tmp_path_factory.mktemp("flow") / "chat")
        delete_connection("middleware")


@pytest.fixture(scope="module")
def stock(make):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "use_inline_middleware", lambda app: None)
        return make()


@pytest.fixture(scope="module")
def ours(make):
    return make()


def names(app):
    return [each.cls.__name__ for each in app.user_middleware]


@pytest.mark.parametrize("case", REQUESTS)
def test_the_same_as_prompt_flows(case, stock, ours, monkeypatch):
    method, path, kw = REQUESTS[case]
    seen = []
    for app in (stock, ours):
        monitored = Monitored(app, monkeypatch)
        client = TestClient(app, raise_server_exceptions=False)
        response = client.request(method, path, **kw)
        seen.append(
            (response.status_code, dict(response.headers), response.content, monitored.calls)
        )
    assert seen[0] == seen[1]
    if method == "POST":
        assert seen[0][3]


def test_ours_take_the_places_of_prompt_flows(stock, ours):
    assert names(stock)[-2:] == ["ExceptionHandlingMiddleware", "MonitorMiddleware"]
    assert names(ours) == [*names(stock)[:-2], "InlineErrors", "InlineMonitor"]


def test_another_prompt_flow_keeps_its_own(make, stock, monkeypatch):
    monkeypatch.setattr(expectations, "version", lambda name: "1.19.0")
    assert names(make()) == names(stock)


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_error_after_the_first_byte_ends_the_answer(has_begun):
    import asyncio

    sent = []

    async def send(message):
        sent.append(message["type"])

    async def fails(scope, receive, send):
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("late")

    class App:
        logger = None

        class flow_monitor:  # noqa: N801
            handle_error = staticmethod(lambda error, status: None)

    errors = InlineErrors(fails, lambda error, logger: ({"error": str(error)}, 500))
    call = errors({"type": "http", "app": App}, None, send)
    if has_begun:
        with pytest.raises(ValueError, match="late"):
            asyncio.run(call)
        assert sent == ["http.response.start"]
    else:
        asyncio.run(call)
        assert sent == ["http.response.start", "http.response.body"]
