"""Who may send requests to `phi3 serve`: the origin, the host and the password."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from phi3_ops.chat.guard import CORS, SECURITY_HEADERS, Guard


def messages_for(token, headers, app_headers=(), path="/"):
    """The ASGI messages with which a request with these headers is answered."""
    messages = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": list(app_headers)})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        messages.append(message)

    pairs = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    scope = {"type": "http", "path": path, "headers": pairs}
    asyncio.run(Guard(app, token)(scope, None, send))
    return messages


def status_for(token, **headers):
    return messages_for(token, headers)[0]["status"]


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
def test_only_this_servers_own_page_is_admitted(host, origin, status):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert status_for(None, **headers) == status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        (basic("secret"), 200),
        ("Bearer secret", 200),
        (basic("wrong"), 401),
        ("Bearer wrong", 401),
        ("Basic !", 401),
        (basic("ü"), 401),
        (b"\xff", 401),
        (b"\xff \xff", 401),
        (b"Basic \xff", 401),
        (b"Basic /w==", 401),  # the byte FF
        (b"Bearer \xff", 401),
        (b"Bearer ", 401),
        (b"", 401),
    ],
)
def test_a_password_is_required(authorization, status):
    headers = {"authorization": authorization} if authorization else {}
    assert status_for("secret", host="models.example.org", **headers) == status


@pytest.mark.finding(
    13,
    "an `Authorization` header that is not UTF-8",
    "401",
)
def test_a_password_can_contain_any_bytes():
    """os.environ keeps bytes that are not UTF-8 as surrogates."""
    assert status_for("secret\udcff", host="a", authorization="Bearer secret") == 401
    assert status_for("secrét", host="a", authorization=basic("secrét")) == 200


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("localhost:8080/x?", 400),  # CVE-2026-48710: it changes the path of `request.url`
        ("localhost#", 400),
        ("user@localhost", 400),
        ("localhost:a", 400),
    ],
)
def test_the_host_must_be_a_host_also_with_the_password(token, host, status):
    assert status_for(token, host=host, authorization="Bearer secret") == status


@pytest.mark.parametrize("path", ["http://localhost/", "@example.org", ""])
def test_a_path_without_a_slash_is_refused(path):
    """CVE-2026-54282: it becomes a part of the host of `request.url`."""
    assert messages_for(None, {"host": "localhost"}, path=path)[0]["status"] == 400


def test_a_password_does_not_admit_other_pages():
    headers = {"host": "models.example.org", "authorization": basic("secret")}
    assert status_for("secret", **headers, origin="https://example.org") == 403


def test_a_refusal_says_why_and_how():
    start, body = messages_for("secret", {"host": "localhost"})
    assert dict(start["headers"])[b"www-authenticate"] == b'Basic realm="phi3"'
    error = {"code": "UserError", "message": "a password is required"}
    assert json.loads(body["body"]) == {"error": error}
    assert dict(start["headers"])[b"content-security-policy"].startswith(b"default-src 'none'")


def test_the_policy_replaces_the_apps_permission_for_every_origin():
    app_headers = [(name, b"*") for name in CORS] + [(b"x-mine", b"1")]
    start, _ = messages_for(None, {"host": "localhost"}, app_headers)
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert headers == {"x-mine": "1", **SECURITY_HEADERS}


def test_the_start_of_the_server_is_passed_on():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)

    asyncio.run(Guard(app, "secret")({"type": "lifespan"}, None, None))
    assert scopes == [{"type": "lifespan"}]
