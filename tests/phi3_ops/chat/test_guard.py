"""Who may send requests to `phi3 serve`: the origin, the host and the password."""

from __future__ import annotations

import asyncio
import base64

import pytest

from phi3_ops.chat.guard import CORS, SECURITY_HEADERS, Guard


def messages_for(token, headers, app_headers=()):
    """The ASGI messages with which a request with these headers is answered."""
    messages = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": list(app_headers)})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        messages.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(app, token)({"type": "http", "headers": pairs}, None, send))
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
    ],
)
def test_a_password_is_required(authorization, status):
    headers = {"authorization": authorization} if authorization else {}
    assert status_for("secret", host="models.example.org", **headers) == status


def test_a_password_does_not_admit_other_pages():
    headers = {"host": "models.example.org", "authorization": basic("secret")}
    assert status_for("secret", **headers, origin="https://example.org") == 403


def test_a_refusal_says_why_and_how():
    start, body = messages_for("secret", {"host": "localhost"})
    assert dict(start["headers"])[b"www-authenticate"] == b'Basic realm="phi3"'
    assert body["body"] == b'{"error": {"message": "a password is required"}}'


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
