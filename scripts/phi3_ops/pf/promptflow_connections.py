"""The connections of Prompt flow's store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi3_tools.connections import Connection

from ..errors import OpsError, first_line
from .client import pf_client
from .store_database import is_installed, open_database

CUSTOM = "Custom"  # Prompt flow's type of a CustomConnection
SOURCE = "Prompt flow's store"
_FIX = "Check that Prompt flow's store (PF_HOME_DIRECTORY, or ~/.promptflow) can be written."


@dataclass(frozen=True)
class ListedConnection:
    """A connection of the store, without its secrets."""

    name: str
    kind: str
    configs: Mapping[str, str]


def find_promptflow_connection(name: str) -> Any:
    """Return the connection of that name with its secrets, or None if it does not exist.

    Returns:
        A `Connection`; for another type than CustomConnection, Prompt flow's own object.

    Raises:
        OpsError: the store cannot be read.
    """
    if not is_installed():
        return None
    try:
        with open_database("connection") as database:
            if database is not None:
                query = "SELECT * FROM connection WHERE connectionName = ?"
                row = database.execute(query, (name,)).fetchone()
                if row is None:
                    return None
                if row["connectionType"] == CUSTOM:
                    return _custom_connection(name, json.loads(row["customConfigs"]))
        return _load_with_client(name)
    except OpsError:
        raise
    except Exception as error:  # the keyring, the database and Prompt flow have their own errors
        raise OpsError(f"cannot read connection {name!r}: {first_line(error)}", _FIX) from error


def list_promptflow_connections() -> list[ListedConnection]:
    """Return all connections of the store, without secrets; none if Prompt flow is not installed.

    Raises:
        OpsError: the store cannot be read.
    """
    if not is_installed():
        return []
    try:
        with open_database("connection") as database:
            if database is not None:
                rows = database.execute("SELECT * FROM connection ORDER BY connectionName")
                return [_listed(row) for row in rows]
        return [
            ListedConnection(each.name, str(each.type), dict(getattr(each, "configs", None) or {}))
            for each in pf_client().connections.list(all_results=True)
        ]
    except Exception as error:  # likewise
        raise OpsError(f"cannot read the connections: {first_line(error)}", _FIX) from error


def write_promptflow_connection(
    name: str, configs: Mapping[str, str], secrets: Mapping[str, str]
) -> None:
    """Write a CustomConnection into the store. An existing connection of that name is replaced.

    Raises:
        OpsError: the store cannot be written.
    """
    client = pf_client()
    from promptflow.entities import CustomConnection

    connection = CustomConnection(name=name, configs=dict(configs), secrets=dict(secrets))
    try:
        client.connections.create_or_update(connection)
    except Exception as error:  # likewise
        raise OpsError(f"cannot write connection {name!r}: {first_line(error)}", _FIX) from error


def delete_promptflow_connection(name: str) -> bool:
    """Delete a connection of the store, and return whether it existed.

    Raises:
        OpsError: the store cannot be written.
    """
    if find_promptflow_connection(name) is None:
        return False
    try:
        pf_client().connections.delete(name)
    except Exception as error:  # likewise
        raise OpsError(f"cannot delete connection {name!r}: {first_line(error)}", _FIX) from error
    return True


def _listed(row: sqlite3.Row) -> ListedConnection:
    is_custom = row["connectionType"] == CUSTOM
    fields = json.loads(row["customConfigs"]) if is_custom else {}
    configs = {field: entry["value"] for field, entry in fields.items() if not _is_secret(entry)}
    return ListedConnection(row["connectionName"], row["connectionType"], configs)


def _custom_connection(name: str, fields: Mapping[str, Mapping[str, str]]) -> Connection:
    configs = {field: entry["value"] for field, entry in fields.items() if not _is_secret(entry)}
    secrets = {field: entry["value"] for field, entry in fields.items() if _is_secret(entry)}
    return Connection(name, configs, _decrypted(secrets), SOURCE)


def _is_secret(entry: Mapping[str, str]) -> bool:
    return entry["configValueType"] == "Secret"


def _decrypted(secrets: Mapping[str, str]) -> dict[str, str]:
    """Return secrets in clear. Prompt flow encrypts them with a key that is in the keyring."""
    if not secrets:
        return {}
    import keyring
    from cryptography.fernet import Fernet, InvalidToken

    key = keyring.get_password("promptflow", "encryption_key")
    if key is None:
        raise OpsError("the keyring does not contain Prompt flow's encryption key", _FIX)
    cipher = Fernet(key)
    try:
        return {name: cipher.decrypt(value.encode()).decode() for name, value in secrets.items()}
    except InvalidToken:
        fix = "Create the connection again with `phi3 connect`."
        raise OpsError("Prompt flow's encryption key in the keyring has changed", fix) from None


def _load_with_client(name: str) -> Any:
    client = pf_client()
    from promptflow._sdk._errors import ConnectionNotFoundError

    try:
        return client.connections.get(name, with_secrets=True)
    except ConnectionNotFoundError:
        return None
