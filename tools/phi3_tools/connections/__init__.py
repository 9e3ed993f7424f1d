"""Find a connection by its name, with or without Prompt flow.

`find_connection` looks in a file, in environment variables, in Prompt flow's store where Prompt flow is
installed, in this package's own store, and in further stores that other packages register. This room may
import `errors` only.
"""

from __future__ import annotations

from .connection import Connection
from .lookup import FILE_VARIABLE, find_connection, registered_store, require_connection
from .own_store import (
    KEYRING_SERVICE,
    keyring_username,
    list_own_connections,
    own_store_path,
    read_own_connection,
    user_folder,
)

__all__ = [
    "Connection",
    "FILE_VARIABLE",
    "KEYRING_SERVICE",
    "find_connection",
    "keyring_username",
    "list_own_connections",
    "own_store_path",
    "read_own_connection",
    "registered_store",
    "require_connection",
    "user_folder",
]
