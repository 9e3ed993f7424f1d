"""`phi3 quota`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..terminal import console
from ._common import add_config, add_reading_dry_run

if TYPE_CHECKING:
    from ..azure import QuotaLine

COLUMNS = ("for", "machine", "quota", "used", "limit", "needed", "missing")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show, in cores, the needs of the configured cluster and endpoint, and the region's limits. The "
        "limit of the family and the limit of the region both apply. Each need is compared on its own: "
        "running machines count as used, and a redeploy needs the endpoint's machines a second time. "
        "Exit code 1: cores are missing."
    )
    add_config(parser)
    add_reading_dry_run(parser)


def run(args: argparse.Namespace) -> int:
    from ..azure import (
        ASK_FOR_QUOTA,
        Cloud,
        cluster_need,
        endpoint_need,
        load_config,
        quota_lines,
        quota_notes,
        quota_shortage,
    )
    from ..errors import OpsError

    cloud = Cloud(load_config(args.config))
    needs = [cluster_need(cloud.config), endpoint_need(cloud.config)]
    lines = quota_lines(cloud, needs)
    screen = console()
    screen.print(_table(lines))
    for note in quota_notes(needs):
        screen.print(note, highlight=False, soft_wrap=True)
    if shortage := quota_shortage(lines, cloud.config.azure.location):
        raise OpsError(shortage, ASK_FOR_QUOTA)
    return 0


def _table(lines: Sequence[QuotaLine]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for line in lines:
        limit = "not listed" if line.limit is None else line.limit
        cells = (line.purpose, line.size, line.quota, line.used, limit, line.needed, line.missing)
        table.add_row(*map(str, cells))
    return table
