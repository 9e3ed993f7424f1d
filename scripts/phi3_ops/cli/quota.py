"""`phi3 quota`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._common import add_config, console

if TYPE_CHECKING:
    from ..quota import Line

COLUMNS = ("for", "machine", "quota", "used", "limit", "needed", "missing")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show, in cores, what the configured cluster and endpoint need and what the region gives: the "
        "limit of the family and that of the region both bind. Each is looked at by itself; what runs "
        "already counts as used, and a redeploy needs the endpoint's machines a second time. Exit "
        "code 1: something is missing."
    )
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    from .. import config, quota
    from ..cloud import Cloud
    from ..errors import OpsError

    cloud = Cloud(config.load(args.config))
    needs = [quota.cluster_need(cloud.config), quota.endpoint_need(cloud.config)]
    found = quota.lines(cloud, needs)
    screen = console()
    screen.print(_table(found))
    for note in quota.notes(needs):
        screen.print(note, highlight=False, soft_wrap=True)
    if short := quota.shortage(found, cloud.config.azure.location):
        raise OpsError(short, quota.ASK)
    return 0


def _table(found: Sequence[Line]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in found:
        limit = "not listed" if line.limit is None else line.limit
        cells = (line.purpose, line.size, line.quota, line.used, limit, line.needed, line.missing)
        table.add_row(*map(str, cells))
    return table
