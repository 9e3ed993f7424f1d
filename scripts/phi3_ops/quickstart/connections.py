"""The connections of a quickstart: remember the earlier ones, and restore them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phi3_tools import Phi3Error

from ..errors import OpsError, first_line
from ..files import read_marker
from ..pf import connection_url, delete_connection, load_connection, save_connection


def earlier_connection(workdir: Path, name: str) -> Any:
    """Return a connection that a quickstart is about to replace, with its secrets.

    Returns:
        The connection; None if it does not exist, or leads to an earlier endpoint of the workdir.
    """
    connection = load_connection(name)
    leads_here = connection is not None and connection_url(name) == _recorded_url(workdir, name)
    return None if leads_here else connection


def restore_connection(workdir: Path, name: str, earlier: Any) -> str | None:
    """Restore the connection that led elsewhere before, after the endpoint of the workdir was stopped.

    Without an earlier connection, the present one is deleted. A connection that leads to something else
    than an endpoint of the workdir stays.

    Args:
        workdir: folder of the quickstart.
        name: name of the connection.
        earlier: the connection that `earlier_connection` returned, or None.

    Returns:
        One line about what was done, or None.
    """
    try:
        url = connection_url(name)
        if url is None or url != _recorded_url(workdir, name):
            return None
        if earlier is None:
            delete_connection(name)
            return f"deleted the connection {name!r}: its endpoint is stopped"
        save_connection(name, dict(earlier.configs), dict(earlier.secrets).get("key", ""))
        return f"restored the connection {name!r}, which the quickstart had replaced"
    except (OpsError, Phi3Error) as error:  # it must not hide why the quickstart ends
        return f"cannot restore the connection {name!r}: {first_line(error)}"


def _recorded_url(workdir: Path, name: str) -> str | None:
    """Return the scoring URL of the workdir's endpoint that a connection got last, or None."""
    marker = read_marker(workdir)
    return marker.connections.get(name) if marker else None
