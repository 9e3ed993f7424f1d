"""`phi3 serve` without its page: promptflow's answers, what is added to them, who is let in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import pytest
import requests
import yaml

from phi3_ops import paths
from phi3_ops.chat.guard import Guard, is_loopback
from phi3_ops.chat.server import DetachedStream
from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection
from scripted_endpoint import HANG_S, scripted_endpoint
from served_flow import phi3_serve

USAGE = {"x-phi3-usage": "1"}


@pytest.fixture(scope="module")
def endpoint():
    with scripted_endpoint() as endpoint:
        for name in ("phi3", "phi3-base"):
            save_connection(name, {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        yield endpoint
        for name in ("phi3", "phi3-base"):
            delete_connection(name)


@pytest.fixture(scope="module")
def served(endpoint):
    with phi3_serve("--against", "phi3-base") as served:
        yield served


def events(response):
    """Server-sent events: (event, data)."""
    found, kind = [], "message"
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        if line.startswith("data: "):
            found.append((kind, json.loads(line.removeprefix("data: "))))
    return found


# -- what it answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["", "/side1"])
def test_whole_answers_and_streams_are_promptflows(served, side):
    assert served.ask("Say ü", side=side).json() == {"answer": "Say ü"}
    with served.ask("one two", side=side, stream=True) as streamed:
        assert events(streamed) == [("message", {"answer": "one "}), ("message", {"answer": "two"})]


@pytest.mark.parametrize("side", ["", "/side1"])
def test_a_stream_ends_with_its_tokens_for_whom_asks(served, side):
    with served.ask("one two", side=side, stream=True, headers=USAGE) as streamed:
        *_, last = events(streamed)
    assert last == ("usage", {"prompt_tokens": 11, "completion_tokens": 2})


def test_promptflows_routes(served):
    assert requests.get(f"{served.url}/health", timeout=HANG_S).json()["status"] == "Healthy"
    swagger = requests.get(f"{served.url}/swagger.json", timeout=HANG_S).json()
    assert "/score" in swagger["paths"]


def test_an_error_says_what_to_do(served):
    refused = served.ask("fail", stream=True)
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "told to fail. Check the generation parameters" in message


def test_a_client_that_leaves_ends_the_call(served, endpoint):
    endpoint.gone.clear()
    with served.ask("endless", stream=True) as streamed:
        next(streamed.iter_lines(chunk_size=1))
    assert endpoint.gone.wait(HANG_S)


def test_a_client_that_leaves_a_silent_endpoint_holds_nobody_up(served, endpoint):
    endpoint.held.add("hold on")
    endpoint.release.clear()
    with served.ask("hold on", stream=True) as streamed:
        next(streamed.iter_lines(chunk_size=1))
    # Answered although the endpoint still keeps the last word back.
    assert requests.get(f"{served.url}/health", timeout=HANG_S / 2).ok
    assert served.ask("next", stream=True).ok
    endpoint.release.set()


def test_many_stream_at_once(served, endpoint):
    """More than asyncio's own threads: each has its first word while all are held back."""
    endpoint.held.add("one last")
    endpoint.release.clear()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(served.ask("one last", stream=True)) for _ in range(32)]
        lines = [stream.iter_lines(chunk_size=1) for stream in streams]
        assert {next(each) for each in lines} == {b'data: {"answer": "one "}'}
        endpoint.release.set()
        assert all(b'data: {"answer": "last"}' in list(each) for each in lines)


def test_the_page_has_a_strict_policy(served):
    for path in ("/", "/static/page.js", "/page.json", "/health"):
        got = requests.get(served.url + path, timeout=HANG_S)
        assert got.ok
        assert got.headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert got.headers["x-content-type-options"] == "nosniff"


def test_what_is_served_is_named(served):
    page = requests.get(f"{served.url}/page.json", timeout=HANG_S).json()
    version = yaml.safe_load((paths.FLOWS / "chat" / "flow.dag.yaml").read_text())["tags"][
        "version"
    ]
    sides = [{"connection": "phi3", "path": "/"}, {"connection": "phi3-base", "path": "/side1/"}]
    assert page == {"flow": "chat", "version": version, "sides": sides}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("**b** `c`", "<p><strong>b</strong> <code>c</code></p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("<b onclick=x>", "<p>&lt;b onclick=x&gt;</p>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("![x](https://example.invalid/y.png)", None),
    ],
)
def test_markdown_is_safe(served, said, shown):
    html = requests.post(f"{served.url}/markdown", data=said, timeout=HANG_S).json()["html"]
    assert "<img" not in html
    assert shown is None or html == shown


# -- another flow, and the end -----------------------------------------------------------------------


SHOUT = """
from promptflow.core import tool

@tool
def shout(text: str) -> str:
    return text.upper()
"""


def flow_of_two_nodes(folder: Path) -> Path:
    """A chat flow whose answer is worked on: it cannot stream."""
    content = yaml.safe_load((paths.FLOWS / "chat" / "flow.dag.yaml").read_text())
    source = {"type": "code", "path": "shout.py"}
    inputs = {"text": "${chat.output}"}
    content["nodes"].append({"name": "shout", "type": "python", "source": source, "inputs": inputs})
    content["outputs"]["answer"]["reference"] = "${shout.output}"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(yaml.safe_dump(content))
    (folder / "shout.py").write_text(SHOUT)
    (folder / ".env").write_text("SECRET=x")
    return folder


def test_a_flow_that_cannot_stream_is_served_and_ctrl_c_ends_it(endpoint, tmp_path):
    endpoint.release.clear()
    endpoint.held.add("hold on")
    flow = flow_of_two_nodes(tmp_path / "loud")
    with phi3_serve("--flow", flow, TMPDIR=str(tmp_path)) as served:
        both = {"accept": "text/event-stream, application/json"}
        assert served.ask("quiet", headers=both).json() == {"answer": "QUIET"}
        (copy,) = tmp_path.glob("phi3-serve-*/0")
        assert not (copy / ".env").exists()
        asking = threading.Thread(target=_ask_in_vain, args=(served,))
        asking.start()
        while endpoint.messages() != ["hold on"]:
            time.sleep(0.02)
        printed = served.stop()  # while an endpoint keeps an answer back
        asking.join(HANG_S)
    assert "Traceback" not in printed
    assert printed.splitlines()[-1] == "Ctrl-C stops"
    assert not list(tmp_path.glob("phi3-serve-*"))
    endpoint.release.set()


def _ask_in_vain(served):
    with contextlib.suppress(requests.RequestException):
        served.ask("hold on")


# -- wrong input -------------------------------------------------------------------------------------


def test_wrong_input_is_one_line(endpoint, monkeypatch, capsys):
    monkeypatch.delenv("PHI3_SERVE_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, said in {
            (
                "--connection",
                "none",
            ): "there is no connection 'none'. Write it with `phi3 connect`.",
            ("--flow", "qa"): "it has no input `question`. Serve it with `pf flow serve",
            ("--flow", "nowhere"): "there is no flow in nowhere.",
            (
                "--port",
                str(port),
            ): f"cannot listen on 127.0.0.1, port {port}: Address already in use.",
            ("--host", "0.0.0.0"): "not without a password. Put a password into PHI3_SERVE_TOKEN.",
        }.items():
            assert main(["serve", "--port", "0", *words]) == 1
            line = capsys.readouterr().err
            assert said in line
            assert line.count("\n") == 1


# -- who may ask -------------------------------------------------------------------------------------


def answer_of(token, **headers):
    """The status with which a request with these headers is answered."""
    statuses = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        statuses.append(message.get("status"))

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(app, token)({"type": "http", "headers": pairs}, None, send))
    return statuses[0]


def basic(password):
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8080", None, 200),
        ("localhost:8080", "http://localhost:8080", 200),
        ("[::1]:8080", "http://[::1]:8080", 200),
        ("[::1]", "http://[::1]", 200),
        ("127.0.0.1:8080", "http://127.0.0.1:9090", 403),
        ("127.0.0.1:8080", "https://example.org", 403),
        ("127.0.0.1:8080", "null", 403),
        ("rebound.example.org:8080", "http://rebound.example.org:8080", 403),
        ("127.0.0.1.example.org", None, 403),
        ("[", None, 403),
        ("", None, 403),
    ],
)
def test_only_this_servers_own_page_may_ask(host, origin, status):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert answer_of(None, **headers) == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (basic("secret"), 200),
        ("Bearer secret", 200),
        (basic("wrong"), 401),
        ("Bearer wrong", 401),
        ("Basic !", 401),
        (basic("ü"), 401),
    ],
)
def test_a_password_is_asked_for(given, status):
    headers = {"host": "models.example.org"} | ({"authorization": given} if given else {})
    assert answer_of("secret", **headers) == status


def test_a_password_does_not_let_other_pages_in():
    headers = {"host": "models.example.org", "authorization": basic("secret")}
    assert answer_of("secret", **headers, origin="https://example.org") == 403


def test_another_host_is_served_with_a_password(endpoint):
    with phi3_serve("--host", "0.0.0.0", PHI3_SERVE_TOKEN="secret") as served:
        assert served.ask("hello").status_code == 401
        assert served.ask("hello", auth=("", "secret")).json() == {"answer": "hello"}
        assert "secret" not in served.stop()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


# -- streams -----------------------------------------------------------------------------------------


def test_a_closed_stream_is_closed_with_its_next_piece():
    may_go, closed = threading.Event(), threading.Event()

    def pieces():
        try:
            yield 1
            may_go.wait(HANG_S)
            yield 2
            yield 3
        finally:
            closed.set()

    async def read():
        stream = DetachedStream(pieces())
        assert await anext(stream) == 1
        stream.close()
        assert not closed.is_set()
        may_go.set()
        return [piece async for piece in stream]

    assert asyncio.run(read()) == []
    assert closed.is_set()


def test_a_streams_error_is_raised():
    def pieces():
        yield 1
        raise ValueError("told to fail")

    async def read():
        stream = DetachedStream(pieces())
        assert await anext(stream) == 1
        with pytest.raises(ValueError, match="told to fail"):
            await anext(stream)

    asyncio.run(read())
