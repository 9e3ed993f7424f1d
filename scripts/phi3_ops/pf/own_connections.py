"""Write connections into the package's own store, which `phi3_tools.connections` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from phi3_tools.connections import (
    KEYRING_SERVICE,
    keyring_username,
    list_own_connections,
    own_store_path,
    user_folder,
)

from ..errors import OpsError
from ..files import file_lock, private_folder, write_json

_FIX = "Check with `phi3 doctor` that the keyring works."


def write_own_connection(name: str, configs: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Write a connection. An existing connection of that name is replaced.

    If the write fails, the existing connection keeps its fields and its secrets.

    Raises:
        OpsError, ConfigError: the store or the keyring cannot be written.
    """
    with _locked():
        connections = list_own_connections()
        token = token_hex(8)
        entry = {"configs": dict(configs), "secrets": sorted(secrets), "token": token}
        try:
            for field, value in secrets.items():
                _set_secret(name, field, token, value)
            write_json(own_store_path(), {**connections, name: entry})
        except BaseException:
            with suppress(Exception):  # the first error is reported
                _delete_secrets(name, entry)
            raise
        if name in connections:
            _delete_secrets(name, connections[name])


def delete_own_connection(name: str) -> bool:
    """Delete a connection with its secrets, and return whether it existed.

    Raises:
        OpsError, ConfigError: the store cannot be written.
    """
    if name not in list_own_connections():
        return False
    with _locked():
        connections = list_own_connections()
        entry = connections.pop(name, {"secrets": []})
        write_json(own_store_path(), connections)
        _delete_secrets(name, entry)
    return True


@contextmanager
def _locked() -> Iterator[None]:
    """Keep other processes from changing the store between reading and writing it."""
    folder = private_folder(user_folder(), "Set PHI3_HOME to a folder that only you can open.")
    try:
        with file_lock(folder / "connections.lock"):
            yield
    except OSError as error:
        raise OpsError(f"cannot lock {folder}: {error.strerror or error}") from error


def _set_secret(name: str, field: str, token: str, value: str) -> None:
    import keyring

    try:
        keyring.set_password(KEYRING_SERVICE, keyring_username(name, field, token), value)
    except Exception as error:  # each keyring has its own errors; their texts may contain secrets
        kind = type(error).__name__
        what = f"cannot write the `{field}` of connection {name!r} to the keyring ({kind})"
        raise OpsError(what, _FIX) from None


def _delete_secrets(name: str, entry: Mapping[str, Any]) -> None:
    """Delete the secrets of a connection from the keyring.

    Args:
        name: the connection's name.
        entry: its entry in the store.
    """
    import keyring
    from keyring.errors import KeyringError

    for field in entry["secrets"]:
        with suppress(KeyringError):  # it does not exist any more
            username = keyring_username(name, field, entry.get("token"))
            keyring.delete_password(KEYRING_SERVICE, username)
