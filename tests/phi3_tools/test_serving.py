"""The checks of requests to a served flow: images, bodies, routes, the path and the Host header."""

from __future__ import annotations

import asyncio
import json

import pytest

from phi3_tools.serving import (
    MAX_BODY_BYTES,
    MAX_DEPTH,
    ROUTES,
    CheckedRequests,
    RefusedRequest,
    read_body,
    require_inputs,
)

TYPES = {"question": "string", "chat_history": "list", "facts": "object", "photo": "image"}
IMAGE = {"data:image/png;path": "/dev/ptmx"}


def image_path(inputs, types=TYPES):
    """The path of the image for which the inputs are refused, or None."""
    body = inputs if isinstance(inputs, bytes) else json.dumps(inputs).encode()
    try:
        require_inputs(body, types)
    except RefusedRequest as refused:
        assert refused.status == 400
        path, words, _ = refused.message.partition(" refers to an image; the flow reads only text")
        assert words
        return path
    return None


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        ({"chat_history": [IMAGE]}, 'chat_history[0]["data:image/png;path"]'),
        (
            {"chat_history": [{}, {"inputs": {"question": [IMAGE]}}]},
            'chat_history[1].inputs.question[0]["data:image/png;path"]',
        ),
        ({"facts": {"a b": IMAGE}}, 'facts["a b"]["data:image/png;path"]'),
        ({"facts": {"data:image/*;url": "http://a"}}, 'facts["data:image/*;url"]'),
        ({"facts": {"data:image/png;base64": "AAAA"}}, 'facts["data:image/png;base64"]'),
        ({"facts": {**IMAGE, "more": 1}}, 'facts["data:image/png;path"]'),
        (IMAGE, '["data:image/png;path"]'),
        ({"question": IMAGE}, 'question["data:image/png;path"]'),
        ({"unknown": [IMAGE]}, 'unknown[0]["data:image/png;path"]'),
        ({"photo": "/etc/passwd"}, "photo"),
        (
            {"chat_history": [{"type": "image_url", "image_url": {"url": "http://a"}}]},
            "chat_history[0].image_url",
        ),
        (
            {"facts": {"type": "image_file", "image_file": {"path": "/etc/passwd"}}},
            "facts.image_file",
        ),
        # Prompt flow reads JSON in a text for an input that is not a text.
        ({"chat_history": json.dumps([IMAGE])}, 'chat_history[0]["data:image/png;path"]'),
        (rb'{"facts": {"\u0064ata:image\/png;path": "/a"}}', 'facts["data:image/png;path"]'),
        (json.dumps({"facts": IMAGE}).encode("utf-16"), 'facts["data:image/png;path"]'),
    ],
)
def test_a_reference_to_an_image_is_refused_with_its_path(inputs, path):
    assert image_path(inputs) == path


def test_a_text_that_is_the_only_input_may_be_json_for_prompt_flow():
    assert image_path(b'["data:image/png;path"', {"chat_history": "list"}) is None
    assert image_path({"a": 1}, {}) is None


@pytest.mark.parametrize(
    "inputs",
    [
        {"question": json.dumps(IMAGE), "chat_history": []},
        {"question": "data:image/png;base64,AAAA", "chat_history": [["data:image/png;path"]]},
        {"question": "x", "chat_history": [{"type": "image_url"}, {"type": ["image_url"]}]},
        {"question": "ü\n\U0001f600", "chat_history": [{"inputs": {"question": "y"}, "id": 5}]},
    ],
)
def test_texts_that_mention_images_are_answered(inputs):
    assert image_path(inputs) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "the body is not a JSON object"),
        (b"5", "the body is not a JSON object"),
        (b"\xff", "the body is not UTF-8"),
        (b'{"question": "\\uD800"}', "the body contains half of a surrogate pair"),
        (b'{"facts": ' + b"[" * 100_000, f"more than {MAX_DEPTH} nested"),
        (b'{"facts": ' + b"[" * 65 + b"]" * 65 + b"}", f"more than {MAX_DEPTH} nested"),
        (json.dumps({"facts": "[" * 100_000}).encode(), f"more than {MAX_DEPTH} nested"),
        (
            b'{"a": "\\ud800", "facts": ' + b"[" * 900 + b"]" * 900 + b"}",
            "more than 64 nested|half",
        ),
    ],
)
def test_bodies_that_prompt_flow_cannot_answer_are_refused(body, message):
    with pytest.raises(RefusedRequest, match=message) as caught:
        require_inputs(body, TYPES)
    assert caught.value.status == 400


# -- the middleware ----------------------------------------------------------------------------------


def answer(method="POST", path="/score", messages=(), headers=((b"host", b"a"),), types=TYPES):
    """Status, headers, body, and what the app got: the messages of one request."""
    received, sent = [], []
    incoming = iter(messages)

    async def receive():
        return next(incoming, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        received.append(await receive())

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(CheckedRequests(app, types)(scope, receive, send))
    if not sent:
        return None, {}, b"", received
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], received


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def test_the_app_gets_the_body_in_one_part_and_then_the_end_of_the_connection():
    status, _, _, received = answer(messages=[part(b'{"questi', True), part(b'on": "x"}')])
    assert status == 200
    assert received == [part(b'{"question": "x"}'), {"type": "http.disconnect"}]


def test_a_refusal_has_the_form_of_prompt_flows_errors():
    status, headers, body, received = answer(messages=[part(json.dumps({"facts": IMAGE}).encode())])
    assert (status, received) == (400, [])
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)
    error = json.loads(body)["error"]
    assert error["code"] == "UserError" and "refers to an image" in error["message"]


@pytest.mark.finding(
    24,
    "a request to `phi3 serve` has a header, for example `traceparent`, that is not UTF-8",
    "400 before OpenTelemetry reads it",
)
@pytest.mark.parametrize("name", [b"traceparent", b"user-agent", b"x-own"])
def test_a_header_that_is_not_utf_8_is_refused(name):
    status, _, body, received = answer(headers=((b"host", b"a"), (name, b"\x80\\")))
    assert (status, received) == (400, [])
    message = f"the header {name.decode()} is not UTF-8"
    assert json.loads(body)["error"]["message"] == message
    assert (
        answer(headers=((b"host", b"a"), (name, "ü\\".encode())), messages=[part(b"{}")])[0] == 200
    )


def test_a_client_that_leaves_is_not_answered():
    assert answer(messages=[part(b"{", True)]) == (None, {}, b"", [])


@pytest.mark.parametrize("path", ["/score", "/feedback"])
def test_a_body_has_a_limit(path):
    large = MAX_BODY_BYTES + 1
    declared = ((b"host", b"a"), (b"content-length", str(large).encode()))
    assert answer(path=path, headers=declared)[0] == 413
    parts = [part(b"x" * 2**20, True)] * 3
    assert answer(path=path, messages=parts)[0] == 413
    assert answer(path="/feedback", messages=[part(b"x" * MAX_BODY_BYTES)])[0] == 200


def test_a_body_is_not_read_beyond_the_limit():
    messages = iter([part(b"x" * 2**20, True)] * 3)

    async def receive():
        return next(messages)

    with pytest.raises(RefusedRequest, match="larger than"):
        asyncio.run(read_body({"headers": []}, receive))
    assert next(messages, None) is None


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE"])
def test_a_wrong_method_is_405_with_the_right_one(path, method):
    status, headers, _, _ = answer(method, path, [part(b'{"question": "x"}')])
    allowed = ROUTES[path]
    assert status == (200 if method == allowed else 405)
    assert headers.get(b"allow") == (None if method == allowed else allowed.encode())


@pytest.mark.parametrize("path", ["/", "/none", "/static/index.html", "/docs", "/score/"])
def test_other_paths_do_not_reach_prompt_flow(path):
    assert answer("GET", path)[0] == 404


@pytest.mark.parametrize("path", ["http://a/score", "@example.org", "", "*"])
def test_a_path_without_a_slash_is_refused(path):
    """CVE-2026-54282: such a path becomes a part of the host in `request.url`."""
    assert answer("GET", path)[0] == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"a", 200),
        (b"127.0.0.1:8080", 200),
        (b"[::1]:8080", 200),
        (b"my_service.internal-1:80", 200),
        (b"", 400),
        (b"a/score?", 400),
        (b"a#", 400),
        (b"user@a", 400),
        (b"a:b", 400),
        (b"a b", 400),
        (b"a\\b", 400),
        (b"[::1", 400),
        (b"\xff", 400),
        (b"a,b", 400),
    ],
)
def test_the_host_header_is_a_host(host, status):
    """CVE-2026-48710: another Host header changes the path in `request.url`."""
    assert answer("GET", "/health", headers=[(b"host", host)])[0] == status


def test_a_request_has_at_most_one_host():
    assert answer("GET", "/health", headers=[])[0] == 200  # HTTP/1.0
    assert answer("GET", "/health", headers=[(b"host", b"a")] * 2)[0] == 400


def test_the_start_of_the_server_is_passed_on():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)

    asyncio.run(CheckedRequests(app, {})({"type": "lifespan"}, None, None))
    assert scopes == [{"type": "lifespan"}]
