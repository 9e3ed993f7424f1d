"""`phi3 connections`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import OpsError
from ..names import name_argument
from ..terminal import print_text
from ._records import add_json, print_json, print_table

if TYPE_CHECKING:
    from ..pf import StoredConnection

COLUMNS = ("name", "store", "endpoint", "other_fields")


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
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ..pf import delete_connection, list_connections

    if args.delete:
        if not delete_connection(args.delete):
            what = f"the connection {args.delete!r} does not exist"
            raise OpsError(what, "`phi3 connections` lists the connections.")
        print_text(f"deleted {args.delete!r}")
        return 0
    connections = list_connections()
    records = list(map(_record, connections))
    if args.json:
        print_json(records)
        return 0
    if not connections:
        print_text(
            "no connections; start a model with phi3 endpoint, or use phi3 connect --endpoint URL"
        )
        return 0
    print_table(records, COLUMNS, formats={"other_fields": _field_list})
    return 0


def _record(connection: StoredConnection) -> dict[str, Any]:
    """Return what is printed of a connection: nothing secret."""
    from ..runs import url_without_secrets

    fields = dict(connection.configs)
    endpoint = url_without_secrets(fields.pop("endpoint", ""))
    fields.pop("key", None)  # Foundry lets users store it in either field
    return {
        "name": connection.name,
        "store": connection.store,
        "endpoint": endpoint,
        "other_fields": fields,
    }


def _field_list(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(fields.items()))
