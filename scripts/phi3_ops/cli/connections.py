"""`phi3 connections`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..names import name_argument
from ..terminal import console, print_text

if TYPE_CHECKING:
    from ..pf import StoredConnection

COLUMNS = ("name", "store", "endpoint", "other fields")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the stored connections, without their keys. The store is promptflow where Prompt flow is "
        "installed, and phi3, the package's own store, elsewhere. Connections from variables are not "
        "listed."
    )
    parser.add_argument(
        "--delete",
        metavar="NAME",
        type=name_argument,
        help="delete this connection and its key from both stores",
    )


def run(args: argparse.Namespace) -> int:
    from ..pf import delete_connection, list_connections

    if args.delete:
        deleted = delete_connection(args.delete)
        outcome = (
            f"deleted {args.delete!r}"
            if deleted
            else f"the connection {args.delete!r} does not exist"
        )
        print_text(outcome)
        return 0 if deleted else 1
    connections = list_connections()
    if not connections:
        print_text("no connections; create one with phi3 connect --endpoint URL")
        return 0
    console().print(_table(connections))
    return 0


def _table(connections: Sequence[StoredConnection]) -> Any:
    from rich.table import Table

    from ..runs import url_without_secrets
    from ..terminal import one_line

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for connection in connections:
        fields = dict(connection.configs)
        endpoint = url_without_secrets(fields.pop("endpoint", ""))
        fields.pop("key", None)  # Foundry lets users store it in either field
        other = ", ".join(f"{name} {value}" for name, value in sorted(fields.items()))
        row = (connection.name, connection.store, endpoint, other)
        table.add_row(*map(one_line, row))
    return table
