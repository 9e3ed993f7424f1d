"""Prompt flow's database, read and written without importing Prompt flow, which takes seconds.

`open_database` returns None unless the installed Prompt flow is a tested version whose tables have the
expected columns. Callers then use Prompt flow's own client.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import OpsError
from ..installation import install_command
from .expectations import TESTED_SERIES, installed_version

TIMEOUT_S = 30.0  # time to wait for another process that writes
_DATABASE = "pf.sqlite"
# The columns of promptflow-devkit 1.18.5 (promptflow._sdk._orm).
_COLUMNS = {
    "connection": (
        *("connectionName", "connectionType", "configs", "customConfigs"),
        *("createdDate", "lastModifiedDate", "expiryTime"),
    ),
    "run_info": (
        *("name", "type", "created_on", "status", "display_name", "description", "tags"),
        *("properties", "archived", "start_time", "end_time", "data", "run_source", "portal_url"),
    ),
}


def store_folder() -> Path:
    """Return the folder of Prompt flow's store, which need not exist."""
    return Path(os.environ.get("PF_HOME_DIRECTORY") or Path.home() / ".promptflow").expanduser()


def is_installed() -> bool:
    """Return whether Prompt flow with its store is installed."""
    return bool(installed_version("promptflow-devkit"))


def require_promptflow(purpose: str) -> None:
    """Raise OpsError if Prompt flow is not installed.

    Args:
        purpose: what needs it, for the error.
    """
    if not is_installed():
        what = f"{purpose} needs Prompt flow, which is not installed"
        raise OpsError(what, f"Install it with {install_command('promptflow')}")


@contextmanager
def open_database(table: str) -> Iterator[sqlite3.Connection | None]:
    """Open the database inside the block, as one transaction; None if the table cannot be used.

    Args:
        table: `connection` or `run_info`.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    path = store_folder() / _DATABASE
    is_tested = installed_version("promptflow-devkit").startswith(TESTED_SERIES)
    if not (is_tested and path.is_file()):
        yield None
        return
    with closing(sqlite3.connect(path, timeout=TIMEOUT_S)) as database:
        rows = database.execute(f"PRAGMA table_info({table})")
        columns = tuple(row[1] for row in rows)
        if columns != _COLUMNS[table]:
            yield None
            return
        database.row_factory = sqlite3.Row
        with database:
            yield database
