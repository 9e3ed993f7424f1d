"""The order in which a connection is looked up.

1. the JSON file that PHI3_CONNECTIONS_FILE names: `{name: {"configs": …, "secrets": …}}`
2. the variables `PHI3_CONNECTION_<NAME>_<FIELD>`, for example PHI3_CONNECTION_PHI3_ENDPOINT; without an
   endpoint, they replace single fields of the connection that is found below
3. Prompt flow's store, where Prompt flow is installed
4. this package's own store
5. the connections of the workspace
6. for the connection `phi3` only: PHI3_ENDPOINT, PHI3_KEY, …

Stores 3 and 5 belong to other packages. They register a function from a name to a connection, or None,
under the entry point group `phi3_tools.connection_stores` as `promptflow` and `workspace`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .connection import Connection
from .own_store import read_own_connection

FILE_VARIABLE = "PHI3_CONNECTIONS_FILE"
VARIABLE_PREFIX = "PHI3_CONNECTION_"
DEFAULT_CONNECTION = "phi3"
STORES_GROUP = "phi3_tools.connection_stores"
SECRET_FIELDS = ("key",)
# The fields that can be variables. The list is closed, so that the connection `phi3` does not read the
# variables of the connection `phi3-base`.
NAME_VARIABLES = (
    *("endpoint", "key", "contract", "deployment", "auth", "model", "template", "tokenizer"),
    *("connect_timeout_s", "read_timeout_s", "deadline_s", "max_attempts"),
)
DEFAULT_FIELDS = ("endpoint", "key", "contract", "deployment", "auth", "model", "template")

Finder = Callable[[str], Any]


def find_connection(name: str, stores: Mapping[str, Finder] | None = None) -> Any:
    """Return the connection of that name, or None if it does not exist.

    Args:
        name: its name.
        stores: functions by the names `promptflow` and `workspace`; None takes the registered ones.

    Returns:
        A `Connection`, or an object of Prompt flow with `configs` and `secrets`.

    Raises:
        ConfigError: a file or the keyring cannot be read.
    """
    if (connection := _from_file(name)) is not None:
        return connection
    replaced = _from_variables(name)
    if replaced is not None and "endpoint" in replaced.configs:
        return replaced
    if stores is None:
        stores = {store: registered_store(store) for store in ("promptflow", "workspace")}
    finders = (stores.get("promptflow"), read_own_connection, stores.get("workspace"))
    for finder in (*finders, _from_default_variables):
        connection = finder(name) if finder else None
        if connection is not None:
            return _with_fields(connection, replaced) if replaced else connection
    return replaced


def require_connection(name: str, stores: Mapping[str, Finder] | None = None) -> Any:
    """Return the connection of that name; see `find_connection`.

    Raises:
        ConfigError: it does not exist, or a file or the keyring cannot be read.
    """
    connection = find_connection(name, stores)
    if connection is None:
        variable = f"{_prefix(name)}ENDPOINT"
        hint = f"Create it with `phi3 connect`, or set {variable} and {_prefix(name)}KEY."
        raise ConfigError(f"the connection {name!r} does not exist", hint=hint)
    return connection


def registered_store(store: str) -> Finder:
    """Return a function that looks in a registered store, which is loaded when the function is called.

    Args:
        store: `promptflow` or `workspace`; without a registration, the function finds nothing.
    """

    def find(name: str) -> Any:
        for point in entry_points(group=STORES_GROUP, name=store):
            return point.load()(name)
        return None

    return find


def _from_file(name: str) -> Connection | None:
    path = os.environ.get(FILE_VARIABLE)
    if not path:
        return None
    try:
        entry = json.loads(Path(path).read_text(encoding="utf-8")).get(name)
        if entry is None:
            return None
        configs, secrets = dict(entry.get("configs") or {}), dict(entry.get("secrets") or {})
    except OSError as error:
        what = f"{FILE_VARIABLE}: cannot read {path}: {error.strerror}"
        raise ConfigError(what, hint=f"Correct or unset {FILE_VARIABLE}.") from error
    except (ValueError, AttributeError, TypeError, RecursionError):
        what = f"{FILE_VARIABLE}: {path} does not contain connections"
        hint = 'Its form is {"NAME": {"configs": {"endpoint": URL}, "secrets": {"key": KEY}}}.'
        raise ConfigError(what, hint=hint) from None  # the cause would contain the file's text
    return Connection(name, configs, secrets, path)


def _with_fields(connection: Any, replaced: Connection) -> Connection:
    """Return a connection with some fields from variables."""
    return Connection(
        replaced.name,
        {**connection.configs, **replaced.configs},
        {**connection.secrets, **replaced.secrets},
        f"{getattr(connection, 'source', '')} and {replaced.source}",
    )


def _prefix(name: str) -> str:
    return f"{VARIABLE_PREFIX}{re.sub(r'[^0-9A-Za-z]', '_', name).upper()}_"


def _from_variables(name: str) -> Connection | None:
    prefix = _prefix(name)
    variables = {field: f"{prefix}{field.upper()}" for field in NAME_VARIABLES}
    return _from_environment(name, variables, f"the variables {prefix}…")


def _from_default_variables(name: str) -> Connection | None:
    if name != DEFAULT_CONNECTION or not os.environ.get("PHI3_ENDPOINT"):
        return None
    variables = {field: f"PHI3_{field.upper()}" for field in DEFAULT_FIELDS}
    return _from_environment(name, variables, "the variables PHI3_ENDPOINT, PHI3_KEY, …")


def _from_environment(name: str, variables: Mapping[str, str], source: str) -> Connection | None:
    values = {field: os.environ.get(variable, "") for field, variable in variables.items()}
    present = {field: value for field, value in values.items() if value}
    if not present:
        return None
    return Connection(
        name,
        {field: value for field, value in present.items() if field not in SECRET_FIELDS},
        {field: value for field, value in present.items() if field in SECRET_FIELDS},
        source,
    )
