"""The package's own store: the fields in a JSON file of the user, the secrets in the keyring.

`connections.json` maps a name to `configs` (field -> value), `secrets` (the names of secret fields) and
`token`, which is part of the names of the keyring's entries. Each write of a connection makes a new
token. A key is thus never sent to an endpoint that it was not written with, even if a write fails or
another process reads meanwhile. Connections that earlier versions wrote have no token.
This module only reads; `phi3 connect` writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .connection import Connection

HOME_VARIABLE = "PHI3_HOME"
KEYRING_SERVICE = "phi3"
STORE_FILE = "connections.json"


def user_folder() -> Path:
    """Return the user's folder for connections and runs, which need not exist.

    It is PHI3_HOME if that is set, and otherwise `phi3` in XDG_DATA_HOME or ~/.local/share (on Windows
    LOCALAPPDATA).
    """
    if setting := os.environ.get(HOME_VARIABLE):
        return Path(setting).expanduser().absolute()
    setting = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME", "")
    # XDG's specification: a relative path is ignored.
    root = Path(setting) if Path(setting).is_absolute() else Path.home() / ".local" / "share"
    return root / "phi3"


def own_store_path() -> Path:
    """Return the path of the JSON file, which need not exist."""
    return user_folder() / STORE_FILE


def list_own_connections() -> dict[str, dict[str, Any]]:
    """Return name -> `{"configs": …, "secrets": [names], "token": …}` of every connection.

    The result contains no secrets. `token` is missing if an earlier version wrote the connection.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = own_store_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _entry(fields) for name, fields in content.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        hint = "Move it away, and create the connections again with `phi3 connect`."
        raise ConfigError(f"{path} is damaged", hint=hint) from error


def _entry(fields: Any) -> dict[str, Any]:
    entry = {"configs": dict(fields["configs"]), "secrets": list(fields["secrets"])}
    if not all(isinstance(name, str) for name in (*entry["configs"], *entry["secrets"])):
        raise TypeError("the name of a field is not a text")
    return {**entry, "token": str(fields["token"])} if "token" in fields else entry


def keyring_username(name: str, field: str, token: str | None) -> str:
    """Return the user name under which the keyring stores a secret field of a connection.

    Args:
        name: the connection's name.
        field: the field's name.
        token: the connection's token; None if an earlier version wrote the connection.
    """
    return f"{name}/{field}" if token is None else f"{name}/{field}/{token}"


def read_own_connection(name: str) -> Connection | None:
    """Return a connection of the own store with its secrets, or None if it does not exist.

    Raises:
        ConfigError: the file or the keyring cannot be read.
    """
    entry = list_own_connections().get(name)
    while entry is not None:
        fields, token = entry["secrets"], entry.get("token")
        values = {field: _read_secret(name, field, token) for field in fields}
        secrets = {field: value for field, value in values.items() if value is not None}
        if len(secrets) == len(values):
            return Connection(name, entry["configs"], secrets, f"the store {own_store_path()}")
        earlier, entry = entry, list_own_connections().get(name)
        if entry == earlier:  # otherwise, another process has replaced or deleted the connection
            field = next(field for field in values if field not in secrets)
            raise ConfigError(
                f"the keyring does not contain the `{field}` of the connection {name!r}",
                hint="Create the connection again with `phi3 connect`.",
            )
    return None


def _read_secret(name: str, field: str, token: str | None) -> str | None:
    """Return a secret, or None if the keyring does not contain it."""
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            f"the `{field}` of the connection {name!r} is in the keyring, and the package keyring is not "
            "installed",
            hint="Install the package keyring.",
        ) from None
    try:
        value = keyring.get_password(KEYRING_SERVICE, keyring_username(name, field, token))
    except Exception as error:  # each keyring has its own errors; their texts may contain secrets
        kind = type(error).__name__
        raise ConfigError(
            f"cannot read the `{field}` of the connection {name!r} from the keyring ({kind})",
            hint="Check it with `phi3 doctor`.",
        ) from None
    return None if value is None else str(value)
