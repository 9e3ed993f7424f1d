"""Access control for a server on a user's own machine, and the security policy of its page."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from phi3_tools.serving import RefusedRequest, require_well_formed

from ..network import is_loopback
from ..pf import App, Scope

# No other host, no inline script or style, no frames: the text of an answer can only ever be text.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}
CORS = (b"access-control-allow-origin", b"access-control-allow-credentials")


class Guard:
    """ASGI middleware that admits clients with the password, and no pages of another origin.

    Without the check of the origin, any page in the same browser could send requests to this server on
    loopback and read the answers, because promptflow's app allows every origin.

    Args:
        app: the app that handles the admitted requests.
        token: the password of HTTP Basic (any user name) or Bearer authentication. With None, no password
            is needed, and only requests to a loopback name are admitted.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        send = _with_security_headers(send)
        try:
            self._require_admission(scope)
        except RefusedRequest as refused:
            await refused.send(send)
        else:
            await self._app(scope, receive, send)

    def _require_admission(self, scope: Scope) -> None:
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
        if not self._is_same_origin(headers):
            raise RefusedRequest(403, "the request comes from a page of another origin")
        if not self._is_authenticated(headers):
            challenge = {"www-authenticate": 'Basic realm="phi3"'}
            raise RefusedRequest(401, "a password is required", challenge)
        require_well_formed(scope)

    def _is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether the origin is missing (not a browser) or is the requested host.

        Without a password, the host must also be a loopback one: an attacker's name that resolves to
        127.0.0.1 is "the same origin" for a browser.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return False
        return self._token is not None or is_loopback(_hostname(host))

    def _is_authenticated(self, headers: Mapping[str, str]) -> bool:
        if self._token is None:
            return True
        _, password = credentials(headers.get("authorization", ""))
        # A variable of the environment can contain bytes that are not UTF-8.
        token = self._token.encode("utf-8", "surrogateescape")
        return secrets.compare_digest(password.encode(), token)


def credentials(authorization: str) -> tuple[str, str]:
    """Return the user name and the password or token of an Authorization header; empty if it has none.

    Args:
        authorization: value of the header: `Basic …`, or a scheme whose value is a token.
    """
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", value
    try:
        user, _, password = base64.b64decode(value).decode("utf-8").partition(":")
    except ValueError:
        return "", ""
    return user, password


def _hostname(host: str) -> str:
    """Return a Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_security_headers(send: Any) -> Any:
    added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def send_secured(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [
                (name, value) for name, value in message["headers"] if name.lower() not in CORS
            ]
            message = {**message, "headers": [*others, *added]}
        await send(message)

    return send_secured
