"""The CustomConnection that the flows use, in Prompt flow's local store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from phi3_tools import Limits, Params, Phi3Client, Reply

from ..errors import OpsError, first_line
from ..network import is_loopback
from .client import pf_client

DEFAULT_CONNECTION = "phi3"
PROBE_QUESTION = "Hello"
# Prompt flow requires at least one secret, but a connection with `auth: entra` has none.
NO_KEY = "none"
_STORE_FIX = "Check that Prompt flow's store (PF_HOME_DIRECTORY, or ~/.promptflow) can be written."


def save_connection(name: str, fields: Mapping[str, str], key: str) -> str:
    """Write a connection. An existing connection of that name is replaced.

    Call `refuse_replacing_connection` first, unless the user wants to replace any connection.

    Args:
        name: the connection's name in the store.
        fields: its `configs`: `endpoint` and, optionally, `contract`, `template`, `deployment`, `auth`
            and `model`; empty values are left out.
        key: the endpoint's key; empty for `auth: entra`.

    Returns:
        `created`, `updated` or `unchanged`.

    Raises:
        ConfigError: a field is missing or wrong.
        OpsError: the store cannot be written.
    """
    secrets = {"key": key or NO_KEY}
    Phi3Client.from_connection({**fields, **secrets})
    old = load_connection(name)
    configs = {field: value for field, value in fields.items() if value}
    if old is not None and dict(old.configs) == configs and dict(old.secrets) == secrets:
        return "unchanged"
    from promptflow.entities import CustomConnection

    try:
        store = pf_client().connections
        store.create_or_update(CustomConnection(name=name, configs=configs, secrets=secrets))
    except Exception as error:  # Prompt flow's keyring and database have their own errors
        raise OpsError(
            f"cannot write connection {name!r}: {first_line(error)}", _STORE_FIX
        ) from error
    return "updated" if old is not None else "created"


def load_connection(name: str) -> Any:
    """Return the connection of that name with its secrets, or None if it does not exist.

    Raises:
        OpsError: the store cannot be read.
    """
    client = pf_client()
    from promptflow._sdk._errors import ConnectionNotFoundError

    try:
        return client.connections.get(name, with_secrets=True)
    except ConnectionNotFoundError:
        return None
    except Exception as error:
        raise OpsError(
            f"cannot read connection {name!r}: {first_line(error)}", _STORE_FIX
        ) from error


def connection_url(name: str) -> str | None:
    """Return the scoring URL of a connection, "" without one, or None if the connection does not exist.

    Raises:
        OpsError: the store cannot be read.
    """
    connection = load_connection(name)
    return None if connection is None else str(dict(connection.configs).get("endpoint") or "")


def refuse_replacing_connection(name: str, url: str, fix: str) -> None:
    """Raise OpsError if a connection points neither to this machine nor to the host of a URL.

    Such a connection has the key of another endpoint, and replacing it would lose that key.

    Args:
        name: the connection's name; it need not exist.
        url: scoring URL that the connection would get; may be empty.
        fix: what to do about it, for the error.

    Raises:
        OpsError: the connection points to another host, or the store cannot be read.
    """
    present = connection_url(name)
    if present is None:
        return
    host = _host(present)
    if host is None or not (is_loopback(host) or host == _host(url)):
        what = f"the connection {name!r} points to another endpoint ({host or 'unknown'})"
        raise OpsError(f"{what}, and would be replaced", fix)


def _host(url: str) -> str | None:
    """Return the host of a URL; None if it has none."""
    try:
        return urlsplit(url.strip()).hostname
    except ValueError:
        return None


def require_connection(name: str) -> Any:
    """Return the connection of that name with its secrets.

    Raises:
        OpsError: the store cannot be read, or it has no such connection.
    """
    connection = load_connection(name)
    if connection is None:
        what = f"the connection {name!r} does not exist"
        raise OpsError(what, "Create it with `phi3 connect`.")
    return connection


def delete_connection(name: str) -> bool:
    """Delete a connection, and return whether it existed."""
    if load_connection(name) is None:
        return False
    pf_client().connections.delete(name)
    return True


def connection_key(name: str) -> str | None:
    """Return the key of a connection, or None if the connection or its key does not exist."""
    connection = load_connection(name)
    return dict(connection.secrets).get("key") if connection is not None else None


def probe_endpoint(fields: Mapping[str, str], key: str) -> Reply:
    """Send one question to an endpoint, and return its answer.

    Args:
        fields: `configs` of a connection to the endpoint.
        key: the endpoint's key.

    Raises:
        Phi3Error: a field is wrong, or the endpoint did not answer; the class names the cause.
    """
    limits = Limits(read_timeout_s=60, deadline_s=60, max_attempts=2)
    with Phi3Client.from_connection({**fields, "key": key}, limits=limits) as client:
        return client.chat(PROBE_QUESTION, Params(max_new_tokens=8, temperature=0))
