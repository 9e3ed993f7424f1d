"""Who is asking: an endpoint key, or a Microsoft Entra token; and what never to send where.

Contract: "Authenticate to an online endpoint". A request carries `Authorization: Bearer …` for both.
azure-identity is imported only when a token is asked for.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..errors import AuthenticationError, ConfigError

# Seconds before its end at which a token is replaced, so that none expires on its way.
REFRESH_BEFORE_S = 300

# Which audience a host wants; the first suffix that fits.
SCOPES = (
    (".openai.azure.com", "https://cognitiveservices.azure.com/.default"),
    (".services.ai.azure.com", "https://cognitiveservices.azure.com/.default"),
    (".cognitiveservices.azure.com", "https://cognitiveservices.azure.com/.default"),
    ("", "https://ml.azure.com/.default"),
)


class Auth(Protocol):
    """Gives the `Authorization` header of the next request."""

    def header(self) -> str: ...


class KeyAuth:
    """An endpoint's key. Its repr does not show it.

    Raises:
        ConfigError: the key cannot stand in an HTTP header.
    """

    def __init__(self, key: str) -> None:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                "the connection's `key` holds blanks, line ends or characters outside ASCII",
                hint="Copy the key again, without anything around it.",
            )
        self._header = f"Bearer {key}"

    def header(self) -> str:
        return self._header

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyAuth) and other._header == self._header

    def __hash__(self) -> int:
        return hash(self._header)

    def __repr__(self) -> str:
        return "KeyAuth(…)"


class EntraAuth:
    """Tokens for one scope, cached and replaced `REFRESH_BEFORE_S` before they expire. A token that
    could not be replaced in time is used as long as it lasts.

    Args:
        scope: the audience, such as `https://ml.azure.com/.default`.
        credential: an azure-core TokenCredential; DefaultAzureCredential when left out.
    """

    def __init__(self, scope: str, credential: Any = None) -> None:
        self.scope = scope
        self._given = credential
        self._credential = credential
        self._token: str = ""
        self._expires_on = 0.0
        self._lock = threading.Lock()

    def header(self) -> str:
        """The header's value.

        Raises:
            ConfigError: azure-identity is not installed.
            AuthenticationError: no credential gave a token.
        """
        with self._lock:
            if time.time() >= self._expires_on - REFRESH_BEFORE_S:
                try:
                    self._refresh()
                except AuthenticationError:
                    if time.time() >= self._expires_on:
                        raise
            return f"Bearer {self._token}"

    def _refresh(self) -> None:
        credential = self._credential or _default_credential()
        self._credential = credential
        try:
            token = credential.get_token(self.scope)
        except Exception as error:  # azure-core and azure-identity raise several unrelated classes
            raise AuthenticationError(
                "could not get an Entra token",
                detail=next(iter(str(error).splitlines()), type(error).__name__),
                hint="Run `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret.",
            ) from error
        self._token, self._expires_on = token.token, float(token.expires_on)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EntraAuth):
            return False
        return other._given is self._given and other.scope == self.scope

    def __hash__(self) -> int:
        return hash(self.scope)

    def __repr__(self) -> str:
        return f"EntraAuth(scope={self.scope!r})"


def _default_credential() -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise ConfigError(
            "the connection says `auth: entra`, but azure-identity is not installed",
            hint="pip install azure-identity.",
        ) from error
    return DefaultAzureCredential()


def token_scope(url: str) -> str:
    """The Entra scope that an endpoint's host wants."""
    host = urlsplit(url).hostname or ""
    return next(scope for suffix, scope in SCOPES if host.endswith(suffix))


def check_scoring_url(url: str) -> None:
    """Refuse what is no http(s) URL, and plain http to any host but this machine.

    Raises:
        ConfigError: naming the field and the fix.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises where it is no number
    except ValueError as error:
        raise ConfigError(f"the connection's `endpoint` is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            "the connection's `endpoint` must be a full URL",
            hint="It looks like https://NAME.REGION.inference.ml.azure.com/score.",
        )
    if parts.username or parts.password:
        raise ConfigError(
            "the connection's `endpoint` holds a user name or password",
            hint="Put the secret into `key` and leave it out of the URL.",
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"the connection's `endpoint` would send the key to {host} over plain http",
            hint="Use https.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
