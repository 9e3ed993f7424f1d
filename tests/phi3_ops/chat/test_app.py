"""The app of `phi3 serve` without its page: promptflow's answers, and the routes of the page."""

from __future__ import annotations

import asyncio
import html
import json
import socket

import httpx
import pytest
import requests
import yaml

from phi3_ops import paths
from phi3_ops.chat.app import MAX_MARKDOWN, PAGE, STATIC_FILES, Side, make_chat_app, make_flow_app
from phi3_ops.chat.flow_page import is_chat_flow
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_tools.serving import MAX_BODY_BYTES
from scripted_endpoint import HANG_S
from served_flow import events


@pytest.mark.parametrize("side", ["", "/side1"])
def test_whole_answers_and_streams_are_promptflows(served, side):
    assert served.ask("Say ü", side=side).json() == {"answer": "Say ü"}
    with served.ask("one two", side=side, stream=True) as streamed:
        assert events(streamed) == [("message", {"answer": "one "}), ("message", {"answer": "two"})]


def test_promptflows_routes(served):
    assert requests.get(f"{served.url}/health", timeout=HANG_S).json()["status"] == "Healthy"
    swagger = requests.get(f"{served.url}/swagger.json", timeout=HANG_S).json()
    assert "/score" in swagger["paths"]


def test_an_error_says_what_to_do(served):
    refused = served.ask("fail", stream=True)
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert "told to fail. Check the generation parameters" in message


def test_the_page_has_a_strict_policy(served):
    for path in ("/", "/static/page.js", "/page.json", "/health"):
        response = requests.get(served.url + path, timeout=HANG_S)
        assert response.ok
        assert response.headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", sorted(path.name for path in PAGE.iterdir()))
def test_every_file_of_the_page_has_a_route(served, name):
    path = "/" if name == "index.html" else f"/static/{name}"
    answer = requests.get(served.url + path, timeout=HANG_S)
    assert answer.content == (PAGE / name).read_bytes()
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"].startswith(STATIC_FILES[path][1])


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/../app.py", "/static/%5c%5chost%5cshare", "/docs", "/openapi.json"],
)
def test_nothing_else_is_served(served, path):
    """Neither files by their path (CVE-2026-48818) nor the pages of promptflow and FastAPI."""
    with socket.create_connection(served.url.removeprefix("http://").split(":"), HANG_S) as client:
        host = served.url.removeprefix("http://")
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 404 ")


def test_the_page_knows_the_flow_and_its_connections(served):
    page = requests.get(f"{served.url}/page.json", timeout=HANG_S).json()
    dag = yaml.safe_load((paths.FLOWS / "chat" / "flow.dag.yaml").read_text())
    tuned = {"connection": "phi3", "path": "/", "caption": ""}
    base = {"connection": "phi3-base", "path": "/side1/", "caption": "not fine-tuned"}
    questions = ["Who founded Microsoft?", "What is 7 times 8?"]
    version = dag["tags"]["version"]
    assert page == {
        "flow": "chat",
        "version": version,
        "questions": questions,
        "sides": [tuned, base],
        "feedback": None,
        "start": None,
    }
    assert Side(**base) == Side("phi3-base", "/side1/", "not fine-tuned")


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**b** `c`", "<p><strong>b</strong> <code>c</code></p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("<b onclick=x>", "<p>&lt;b onclick=x&gt;</p>\n"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("![x](https://example.invalid/y.png)", None),
    ],
)
def test_markdown_is_safe(served, markdown, expected):
    html = requests.post(f"{served.url}/markdown", data=markdown, timeout=HANG_S).json()["html"]
    assert "<img" not in html
    assert expected is None or html == expected


@pytest.mark.finding(
    24,
    "an answer whose Markdown takes seconds to render",
    "the page shows more than 48,000 characters as plain text",
)
@pytest.mark.parametrize("piece", ["[", "![", "[x][", "[\n", "a\n- ", "|-|\n", "*a_ "])
def test_no_markdown_takes_long(served, piece):
    longest = (piece * MAX_MARKDOWN)[:MAX_MARKDOWN]
    answer = requests.post(f"{served.url}/markdown", data=longest, timeout=5)
    assert answer.json()["html"]

    answer = requests.post(f"{served.url}/markdown", data=f"{longest}x", timeout=5)
    assert answer.json() == {"html": None}


@pytest.mark.finding(
    13,
    "`GET /score` and `OPTIONS /score` on `phi3 serve`",
    "405 with the methods that are allowed",
)
@pytest.mark.parametrize("side", ["", "/side1"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/score", "POST"), ("/feedback", "POST"), ("/health", "GET"), ("/swagger.json", "GET")],
)
def test_a_wrong_method_is_405(served, side, path, allowed):
    for method in ("GET", "OPTIONS", "POST", "PUT", "TRACE"):
        answer = requests.request(method, f"{served.url}{side}{path}", timeout=HANG_S)
        if method == allowed:
            assert answer.status_code == (400 if path == "/score" else 200)
        else:
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/", "GET, HEAD"), ("/static/page.js", "GET, HEAD"), ("/markdown", "POST")],
)
def test_a_wrong_method_of_the_page_is_405(served, path, allowed):
    for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
        answer = requests.request(method, f"{served.url}{path}", timeout=HANG_S)
        if method in allowed:
            assert answer.ok
        else:
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.finding(
    13,
    "a request of any size to `phi3 serve`",
    "413 above 2 MiB",
)
@pytest.mark.parametrize("path", ["/score", "/markdown", "/feedback", "/side1/score"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_413(served, path, is_chunked):
    body = b" " * (MAX_BODY_BYTES + 1)
    data = iter([body]) if is_chunked else body
    answer = requests.post(f"{served.url}{path}", data=data, timeout=HANG_S)
    assert answer.status_code == 413
    message = f"the body is larger than {MAX_BODY_BYTES} bytes"
    assert answer.json() == {"error": {"code": "UserError", "message": message}}


# -- flows and connections that are refused ---------------------------------------------------------


def read_chat(folder, **changes):
    """Write the chat flow with these changes into a folder, and read it."""
    content = yaml.safe_load((paths.FLOWS / "chat" / "flow.dag.yaml").read_text())
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(yaml.safe_dump(content | changes))
    return FlowDefinition.read(folder)


def test_a_flow_that_is_not_a_chat_has_a_page_that_describes_it(endpoint, tmp_path):
    async def ask():
        app = make_chat_app(flow, ["phi3"], tmp_path, token="secret")
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", auth=("", "secret")
        )
        async with client:
            page, health = await client.get("/"), await client.get("/health")
            swagger = await client.get("/swagger.json")
            answer = await client.post("/score", json={"input_data": "Hello"})
            missing = await client.get("/page.json")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert (
            "<code>answer</code>" in page.text and "<td>input_data</td><td>string</td>" in page.text
        )
        curl = """curl -u ":$PHI3_SERVE_TOKEN" -H 'content-type: application/json' -d """
        curl += """'{"input_data": "Who founded Microsoft?", "max_new_tokens": 128}' http://127.0.0.1/score"""
        assert html.unescape(page.text).count(curl) == 1
        assert health.json()["status"] == "Healthy" and missing.status_code == 404
        assert swagger.json()["info"]["x-flow-name"] == "qa"
        assert answer.json() == {"answer": "Hello"}

    flow = FlowDefinition.read(paths.FLOWS / "qa")
    asyncio.run(ask())


@pytest.mark.parametrize(
    ("name", "is_chat"), [("chat", True), ("qa", False), ("judge", False), ("eval", False)]
)
def test_only_a_chat_has_the_chat_page(name, is_chat):
    assert is_chat_flow(FlowDefinition.read(paths.FLOWS / name)) == is_chat


@pytest.mark.parametrize("engine", ["phi3", "promptflow"])
def test_a_flow_without_a_connection_is_served(tmp_path, engine):
    async def ask():
        app = make_chat_app(flow, [], tmp_path, token=None, engine=engine)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/score", json={"answer": "a b", "ground_truth": "a b"})
            return answer.json(), (await client.get("/")).text

    flow = FlowDefinition.read(paths.FLOWS / "eval")
    assert not flow.uses_connection
    answer, page = asyncio.run(ask())
    assert answer["exact_match"] == 1.0 and "ground_truth" in page


def test_a_connection_that_does_not_exist_is_refused(endpoint, tmp_path):
    flow = FlowDefinition.read(paths.FLOWS / "chat")
    with pytest.raises(OpsError, match="the connection 'none' does not exist"):
        make_chat_app(flow, ["phi3", "none"], tmp_path / "copies", token=None)


def test_a_flow_that_promptflow_refuses_is_an_error(endpoint, tmp_path):
    node = {"name": "chat", "type": "python", "source": {"type": "code", "path": "missing.py"}}
    flow = read_chat(tmp_path / "f", nodes=[node])
    with pytest.raises(OpsError, match="cannot be served: .*See `pf flow validate --source"):
        make_flow_app(flow, "phi3", tmp_path / "copy")


def test_every_node_of_the_copy_uses_the_connection(endpoint, tmp_path):
    flow = FlowDefinition.read(paths.FLOWS / "chat")
    make_flow_app(flow, "phi3-base", tmp_path / "copy")
    copy = FlowDefinition.read(tmp_path / "copy")
    assert copy.connection_names({}) == {"chat": "phi3-base"}
    assert flow.connection_names({}) == {"chat": "phi3"}


def test_an_llm_node_of_the_copy_uses_the_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("phi3_ops.chat.app.create_flow_app", lambda folder: None)
    monkeypatch.setattr("phi3_ops.chat.app.wrap_line_execution", lambda app, wrapper: None)
    flow = FlowDefinition.read(paths.FLOWS / "judge_llm")
    make_flow_app(flow, "gpt", tmp_path / "copy")
    copy = FlowDefinition.read(tmp_path / "copy")
    assert copy.connection_names({}) == {"ask": "gpt", "again": "gpt"}


# -- requests that promptflow must not see ------------------------------------------------------------


@pytest.mark.finding(
    9,
    "a request to `phi3 serve` refers to `/dev/ptmx`, a local file or a URL as an image",
    "400 with the path of the field; nothing is opened",
)
@pytest.mark.parametrize("side", ["", "/side1"])
@pytest.mark.parametrize(
    ("image", "key"),
    [
        # Each of them stopped the server for everybody, or told which files there are.
        ("/dev/ptmx", "data:image/png;path"),
        ("/etc/passwd", "data:image/png;path"),
        ("http://127.0.0.1:9/", "data:image/*;url"),
        ("AAAA", "data:image/jpeg;base64"),
    ],
)
def test_images_are_refused_before_promptflow_opens_them(served, side, image, key):
    history = [{"inputs": {"question": [{key: image}]}, "outputs": {}}]
    for sent in (history, json.dumps(history)):
        body = {"question": "x", "chat_history": sent}
        refused = requests.post(f"{served.url}{side}/score", json=body, timeout=5)
        assert refused.status_code == 400
        path = f"chat_history[0].inputs.question[0]{json.dumps([key])}"
        assert refused.json()["error"]["message"].startswith(f"{path} refers to an image")
    assert requests.get(f"{served.url}/health", timeout=5).ok
    assert served.ask("still there", side=side).json() == {"answer": "still there"}
