"""What a client and promptflow's monitor see is the same with our middlewares as with promptflow's."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from phi3_ops import paths
from phi3_ops.chat import server
from phi3_ops.chat.server import _flow_app
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf import middleware
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.middleware import Errors
from scripted_endpoint import scripted_endpoint

ASKED = {"question": "one two", "chat_history": []}
STREAM = {"accept": "text/event-stream"}
REQUESTS = {
    "whole": ("POST", "/score", {"json": ASKED}),
    "streamed": ("POST", "/score", {"json": ASKED, "headers": STREAM}),
    "a stream among others": (
        "POST",
        "/score",
        {"json": ASKED, "headers": [("accept", "text/plain"), ("accept", "text/event-stream")]},
    ),
    "with ids": (
        "POST",
        "/score",
        {"json": ASKED, "headers": {"x-request-id": "r1", "x-ms-client-request-id": "c1"}},
    ),
    "with the client's id": (
        "POST",
        "/score",
        {"json": ASKED, "headers": {"x-ms-client-request-id": "c2"}},
    ),
    "the endpoint refuses": ("POST", "/score", {"json": {**ASKED, "question": "fail"}}),
    "the endpoint refuses a stream": (
        "POST",
        "/score",
        {"json": {**ASKED, "question": "fail"}, "headers": STREAM},
    ),
    "no input": ("POST", "/score", {"json": {}}),
    "no JSON": ("POST", "/score", {"content": b"{"}),
    "nothing that is acceptable": (
        "POST",
        "/score",
        {"json": ASKED, "headers": {"accept": "image/png"}},
    ),
    "another method": ("GET", "/score", {}),
    "another path": ("GET", "/nothing", {}),
    "health": ("GET", "/health", {}),
    "another origin's question": (
        "OPTIONS",
        "/score",
        {"headers": {"origin": "http://a", "access-control-request-method": "POST"}},
    ),
}


class Monitored:
    """What promptflow's monitor was told."""

    def __init__(self, app, monkeypatch):
        self.told = []
        for name in ("start_monitoring", "finish_monitoring", "handle_error"):
            stock = getattr(app.flow_monitor, name)
            monkeypatch.setattr(app.flow_monitor, name, self._telling(name, stock, app))

    def _telling(self, name, stock, app):
        provider = app.flow_monitor.context_data_provider

        def tell(*args):
            seen = [arg if isinstance(arg, int) else type(arg).__name__ for arg in args]
            if name == "finish_monitoring":
                seen += [provider.get_request_id(), provider.get_client_request_id()]
                seen += [provider.is_response_streaming(), provider.get_flow_result() is not None]
            self.told.append((name, *seen))
            return stock(*args)

        return tell


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes promptflow's app for flows/chat."""
    with scripted_endpoint() as endpoint:
        save_connection("middleware", {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        flow = FlowDefinition.read(paths.FLOWS / "chat")
        yield lambda: _flow_app(flow, "middleware", tmp_path_factory.mktemp("flow") / "chat")
        delete_connection("middleware")


@pytest.fixture(scope="module")
def stock(make):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "without_tasks", lambda app: None)
        return make()


@pytest.fixture(scope="module")
def ours(make):
    return make()


def names(app):
    return [each.cls.__name__ for each in app.user_middleware]


@pytest.mark.parametrize("case", REQUESTS)
def test_the_same_as_promptflows(case, stock, ours, monkeypatch):
    method, path, kw = REQUESTS[case]
    seen = []
    for app in (stock, ours):
        monitored = Monitored(app, monkeypatch)
        client = TestClient(app, raise_server_exceptions=False)
        got = client.request(method, path, **kw)
        seen.append((got.status_code, dict(got.headers), got.content, monitored.told))
    assert seen[0] == seen[1]
    if method == "POST":
        assert seen[0][3]


def test_ours_stand_where_promptflows_stood(stock, ours):
    assert names(stock)[-2:] == ["ExceptionHandlingMiddleware", "MonitorMiddleware"]
    assert names(ours) == [*names(stock)[:-2], "Errors", "Monitor"]


def test_another_promptflow_keeps_its_own(make, stock, monkeypatch):
    monkeypatch.setattr(middleware, "version", lambda name: "1.19.0")
    assert names(make()) == names(stock)


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_after_the_first_byte_breaks_the_answer_off(begun):
    import asyncio

    sent = []

    async def send(message):
        sent.append(message["type"])

    async def fails(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("late")

    class App:
        logger = None

        class flow_monitor:  # noqa: N801
            handle_error = staticmethod(lambda error, status: None)

    errors = Errors(fails, lambda error, logger: ({"error": str(error)}, 500))
    call = errors({"type": "http", "app": App}, None, send)
    if begun:
        with pytest.raises(ValueError, match="late"):
            asyncio.run(call)
        assert sent == ["http.response.start"]
    else:
        asyncio.run(call)
        assert sent == ["http.response.start", "http.response.body"]
