"""Authentication by an endpoint key or a Microsoft Entra token, and checks of the scoring URL.

Contract: "Authenticate to an online endpoint". Both send the header `Authorization: Bearer …`.
azure-identity is imported only when a token is needed.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from ..errors import AuthenticationError, ConfigError
from .redaction import redactor

# A token is replaced this many seconds before it expires, so that none expires during a request.
REFRESH_BEFORE_S = 300

# The audience for each suffix of a host name; the first match counts.
SCOPES = (
    (".openai.azure.com", "https://cognitiveservices.azure.com/.default"),
    (".services.ai.azure.com", "https://cognitiveservices.azure.com/.default"),
    (".cognitiveservices.azure.com", "https://cognitiveservices.azure.com/.default"),
    ("", "https://ml.azure.com/.default"),
)


class Auth(Protocol):
    """Source of the `Authorization` header of the next request."""

    def header(self) -> str: ...


class KeyAuth:
    """An endpoint key. Its repr does not contain the key.

    Raises:
        ConfigError: the key has characters that an HTTP header cannot contain.
    """

    def __init__(self, key: str) -> None:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                "the connection's `key` contains blanks, line ends or characters outside ASCII",
                hint="Copy the key again, without any other characters.",
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
    """Entra tokens for one scope, cached and replaced `REFRESH_BEFORE_S` seconds before they expire.

    If a new token cannot be obtained, the old one is used until it expires.

    Args:
        scope: the audience, for example `https://ml.azure.com/.default`.
        credential: an azure-core TokenCredential; by default DefaultAzureCredential.
    """

    def __init__(self, scope: str, credential: Any = None) -> None:
        self.scope = scope
        self._credential_argument = credential
        self._credential = credential
        self._token: str = ""
        self._expires_on = 0.0
        self._lock = threading.Lock()

    def header(self) -> str:
        """Return the value of the header.

        Raises:
            ConfigError: azure-identity is not installed.
            AuthenticationError: the credential returned no token.
        """
        with self._lock:
            if time.time() >= self._expires_on - REFRESH_BEFORE_S:
                try:
                    self._refresh()
                except AuthenticationError as error:
                    error.redact(redactor(self._token).redact)
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
        same_credential = other._credential_argument is self._credential_argument
        return same_credential and other.scope == self.scope

    def __hash__(self) -> int:
        return hash(self.scope)

    def __repr__(self) -> str:
        return f"EntraAuth(scope={self.scope!r})"


def _default_credential() -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise ConfigError(
            "the connection has `auth: entra`, but azure-identity is not installed",
            hint="pip install azure-identity.",
        ) from error
    return DefaultAzureCredential()


def token_scope(url: str) -> str:
    """Return the Entra scope for the host of an endpoint."""
    host = urlsplit(url).hostname or ""
    return next(scope for suffix, scope in SCOPES if host.endswith(suffix))


def scoring_url(text: str, field: str = "the connection's `endpoint`") -> str:
    """Return a scoring URL in its normal form: lower-case scheme and host, no fragment.

    Every later decision and every request uses this URL, so that no other parser can read another host
    or scheme from the text. Plain http is accepted for this machine only.

    Args:
        text: the URL.
        field: name of the URL in error messages.

    Raises:
        ConfigError: the URL is not valid or not safe.
    """
    if " " in text or "\\" in text or not text.isprintable():
        raise ConfigError(
            f"{field} contains blanks, control characters or backslashes",
            hint="Copy the URL again, without any other characters.",
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may contain a password
        raise ConfigError(f"{field} is not a valid URL", hint="Check its host and port.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f"{field} must be a full URL",
            hint="It looks like https://NAME.REGION.inference.ml.azure.com/score.",
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{field} contains a user name or password",
            hint="Remove it from the URL, and put the secret into `key`.",
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"{field} would send the key to {host} over plain http", hint="Use https."
        )
    name = f"[{host}]" if ":" in host else host
    netloc = name if port is None else f"{name}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
