"""Who may ask a server that stands on somebody's own machine, and what its page may do."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..network import is_loopback
from ..pf import App, Scope

# No other host, no inline script or style, nothing framed: what an answer says can only ever be text.
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}
CORS = (b"access-control-allow-origin", b"access-control-allow-credentials")


class Guard:
    """Lets in who has the password, if there is one, and no page of another origin.

    A page that somebody opens in the same browser could otherwise ask this server, which is on loopback,
    and read the answer: promptflow's app allows every origin.

    Args:
        app: what stands behind.
        token: the password of HTTP Basic (any user name) or Bearer authentication; None asks for none,
            and lets in only who asks for a loopback name.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        if not self._is_ours(headers):
            await _refuse(send, 403, "asked by a page of another origin")
        elif not self._may(headers):
            asking = {"www-authenticate": 'Basic realm="phi3"'}
            await _refuse(send, 401, "a password is needed", asking)
        else:
            await self._app(scope, receive, _secured(send))

    def _is_ours(self, headers: Mapping[str, str]) -> bool:
        """No origin (not a browser's page), or the host that was asked; without a password, loopback."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return False
        # A name that an attacker points at 127.0.0.1 is "the same origin" to a browser.
        return self._token is not None or is_loopback(_hostname(host))

    def _may(self, headers: Mapping[str, str]) -> bool:
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode("utf-8").partition(":")[2]
            except ValueError:
                return False
        return secrets.compare_digest(given.encode(), self._token.encode())


def _hostname(host: str) -> str:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _secured(send: Any) -> Any:
    own = [(name.encode(), value.encode()) for name, value in SECURITY.items()]

    async def wrapped(message: Any) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in CORS]
            message = {**message, "headers": [*kept, *own]}
        await send(message)

    return wrapped


async def _refuse(
    send: Any, status: int, why: str, headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps({"error": {"message": why}}).encode()
    sent = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
