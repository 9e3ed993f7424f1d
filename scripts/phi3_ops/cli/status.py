"""`phi3 status`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..terminal import console
from ._common import add_config, add_reading_dry_run
from ._records import add_json, print_json

if TYPE_CHECKING:
    from ..azure import StatusItem

COLUMNS = ("kind", "name", "machines", "state", "traffic", "since", "expires", "owner")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the endpoints, deployments, autoscale settings and clusters that this product created in "
        "the workspace, with their machines, creation time, expiry date and owner, and the machines that "
        "are paid for by the hour. `phi3 down` deletes them."
    )
    add_config(parser)
    add_reading_dry_run(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ..azure import Cloud, load_config, read_status

    status = read_status(Cloud(load_config(args.config)))
    if args.json:
        print_json([asdict(item) for item in status.items], hourly=status.hourly)
        return 0
    screen = console()
    if status.items:
        screen.print(_table(status.items))
    machines = ", ".join(f"{size} x {count}" for size, count in status.hourly.items())
    screen.print(f"paid for by the hour: {machines or 'nothing'}", highlight=False, soft_wrap=True)
    return 0


def _table(items: Sequence[StatusItem]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for item in items:
        machines = f"{item.size} x {item.instances}" if item.size else item.scale
        traffic = "" if item.traffic is None else f"{item.traffic} %"
        cells = (item.kind, item.name, machines, item.state, traffic)
        table.add_row(*cells, item.since, item.expires, item.owner)
    return table
