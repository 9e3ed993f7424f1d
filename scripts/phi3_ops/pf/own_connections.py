"""Write connections into the package's own store, which `phi3_tools.connections` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from phi3_tools.connections import (
    KEYRING_SERVICE,
    list_own_connections,
    own_store_path,
    user_folder,
)

from ..errors import OpsError
from ..files import file_lock, private_folder, write_json

_FIX = "Check with `phi3 doctor` that the keyring works."


def write_own_connection(name: str, configs: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Write a connection. An existing connection of that name is replaced.

    Raises:
        OpsError, ConfigError: the store or the keyring cannot be written.
    """
    with _locked():
        connections = list_own_connections()
        old = connections.get(name, {"secrets": []})
        for field, value in secrets.items():
            _set_secret(name, field, value)
        entry = {"configs": dict(configs), "secrets": sorted(secrets)}
        write_json(own_store_path(), {**connections, name: entry})
        _delete_secrets(name, set(old["secrets"]) - set(secrets))


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
        _delete_secrets(name, entry["secrets"])
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


def _set_secret(name: str, field: str, value: str) -> None:
    import keyring

    try:
        keyring.set_password(KEYRING_SERVICE, f"{name}/{field}", value)
    except Exception as error:  # each keyring has its own errors; their texts may contain secrets
        kind = type(error).__name__
        what = f"cannot write the `{field}` of connection {name!r} to the keyring ({kind})"
        raise OpsError(what, _FIX) from None


def _delete_secrets(name: str, fields: Any) -> None:
    import keyring
    from keyring.errors import KeyringError

    for field in fields:
        with suppress(KeyringError):  # it does not exist any more
            keyring.delete_password(KEYRING_SERVICE, f"{name}/{field}")
