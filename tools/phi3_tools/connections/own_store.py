"""The package's own store: the fields in a JSON file of the user, the secrets in the keyring.

`connections.json` maps a name to `configs` (field -> value) and `secrets` (the names of secret fields).
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
    """Return name -> `{"configs": …, "secrets": [names]}` of every connection, without secrets.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = own_store_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"configs": dict(entry["configs"]), "secrets": list(entry["secrets"])}
            for name, entry in content.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        hint = "Move it away, and create the connections again with `phi3 connect`."
        raise ConfigError(f"{path} is damaged", hint=hint) from error


def read_own_connection(name: str) -> Connection | None:
    """Return a connection of the own store with its secrets, or None if it does not exist.

    Raises:
        ConfigError: the file or the keyring cannot be read.
    """
    entry = list_own_connections().get(name)
    if entry is None:
        return None
    secrets = {field: _read_secret(name, field) for field in entry["secrets"]}
    return Connection(name, entry["configs"], secrets, f"the store {own_store_path()}")


def _read_secret(name: str, field: str) -> str:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            f"the `{field}` of the connection {name!r} is in the keyring, and the package keyring is not "
            "installed",
            hint="Install the package keyring.",
        ) from None
    try:
        value = keyring.get_password(KEYRING_SERVICE, f"{name}/{field}")
    except Exception as error:  # each keyring has its own errors; their texts may contain secrets
        kind = type(error).__name__
        raise ConfigError(
            f"cannot read the `{field}` of the connection {name!r} from the keyring ({kind})",
            hint="Check it with `phi3 doctor`.",
        ) from None
    if value is None:
        raise ConfigError(
            f"the keyring does not contain the `{field}` of the connection {name!r}",
            hint="Create the connection again with `phi3 connect`.",
        )
    return str(value)
