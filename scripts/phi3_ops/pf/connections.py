"""The connection that the flows use: written to a store, looked up, checked and deleted.

Where Prompt flow is installed, connections are written to its store, so that `pf` can use them. Elsewhere
they are written to the package's own store. `find_connection` also looks in files and variables.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from phi3_tools import Limits, Params, Phi3Client, Reply
from phi3_tools.connections import find_connection as look_up_connection
from phi3_tools.connections import (
    list_own_connections,
    read_own_connection,
    registered_store,
)

from ..errors import OpsError
from ..network import is_loopback
from .own_connections import delete_own_connection, write_own_connection
from .promptflow_connections import (
    CUSTOM,
    delete_promptflow_connection,
    find_promptflow_connection,
    list_promptflow_connections,
    write_promptflow_connection,
)
from .store_database import is_installed

DEFAULT_CONNECTION = "phi3"
PROBE_QUESTION = "Hello"
# Prompt flow requires at least one secret, but a connection with `auth: entra` has none.
NO_KEY = "none"
LISTENING_S = 2.0


@dataclass(frozen=True)
class StoredConnection:
    """A connection of a store, without its secrets.

    Attributes:
        name: its name.
        store: `promptflow` or `phi3`.
        configs: its fields that are not secret.
    """

    name: str
    store: str
    configs: Mapping[str, str]


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
    is_own = name in list_own_connections()
    if is_installed():
        write_promptflow_connection(name, configs, secrets)
    if is_own or not is_installed():
        write_own_connection(name, configs, secrets)
    return "updated" if old is not None else "created"


def load_connection(name: str) -> Any:
    """Return the stored connection of that name with its secrets, or None if it does not exist.

    Raises:
        OpsError, ConfigError: a store cannot be read.
    """
    return find_promptflow_connection(name) or read_own_connection(name)


def find_connection(name: str) -> Any:
    """Return the connection that flows use under a name, or None if it does not exist.

    Files and variables come before the stores; see `phi3_tools.connections`.

    Raises:
        OpsError, ConfigError: a file, a store or the keyring cannot be read.
    """
    workspace = registered_store("workspace")
    stores = {"promptflow": find_promptflow_connection, "workspace": workspace}
    return look_up_connection(name, stores)


def list_connections() -> list[StoredConnection]:
    """Return the connections of both stores, without secrets.

    Raises:
        OpsError, ConfigError: a store cannot be read.
    """
    in_promptflow = [
        StoredConnection(each.name, "promptflow", each.configs)
        for each in list_promptflow_connections()
    ]
    own = [
        StoredConnection(name, "phi3", entry["configs"])
        for name, entry in sorted(list_own_connections().items())
    ]
    return [*in_promptflow, *own]


def import_promptflow_connections() -> tuple[list[str], list[str]]:
    """Copy the connections of Prompt flow's store into the package's own store.

    Returns:
        The names that were copied, and those that were not because they are not CustomConnections.

    Raises:
        OpsError: Prompt flow is not installed, or a store cannot be read or written.
    """
    if not is_installed():
        what = "Prompt flow is not installed, so its connections cannot be read"
        raise OpsError(what, "Run this command in the environment that has Prompt flow.")
    copied, skipped = [], []
    for listed in list_promptflow_connections():
        if listed.kind.lower().removesuffix("connection") != CUSTOM.lower():
            skipped.append(listed.name)
            continue
        connection = find_promptflow_connection(listed.name)
        write_own_connection(listed.name, dict(connection.configs), dict(connection.secrets))
        copied.append(listed.name)
    return copied, skipped


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


def stopped_endpoint(name: str) -> str | None:
    """Return the address of a connection's endpoint if it is on this machine and nothing listens there.

    Raises:
        OpsError, ConfigError: a store cannot be read, or the connection does not exist.
    """
    fields = {**dict(require_connection(name).configs)}
    try:
        url = urlsplit(str(fields.get("endpoint", "")).strip())
        host, port = url.hostname, url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return None
    if host is None or not is_loopback(host):
        return None
    try:
        socket.create_connection((host, port), timeout=LISTENING_S).close()
    except OSError:
        return f"{host}:{port}"
    return None


def _host(url: str) -> str | None:
    """Return the host of a URL; None if it has none."""
    try:
        return urlsplit(url.strip()).hostname
    except ValueError:
        return None


def require_connection(name: str) -> Any:
    """Return the connection that flows use under a name, with its secrets.

    Raises:
        OpsError, ConfigError: a store cannot be read, or the connection does not exist.
    """
    connection = find_connection(name)
    if connection is None:
        what = f"the connection {name!r} does not exist"
        raise OpsError(
            what, "Start a model with `phi3 endpoint`, or use `phi3 connect --endpoint URL`."
        )
    return connection


def delete_connection(name: str) -> bool:
    """Delete a connection from the stores, and return whether it existed."""
    was_in_promptflow = delete_promptflow_connection(name)
    return delete_own_connection(name) or was_in_promptflow


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
