"""`phi3 quota`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..terminal import print_text
from ._common import add_config, add_reading_dry_run
from ._records import add_json, print_json, print_table

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
    add_json(parser)


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
    records, notes = list(map(_record, lines)), list(quota_notes(needs))
    if args.json:
        print_json(records, notes=notes)
    else:
        print_table(records, COLUMNS, formats={"limit": _limit})
        for note in notes:
            print_text(note)
    if shortage := quota_shortage(lines, cloud.config.azure.location):
        raise OpsError(shortage, ASK_FOR_QUOTA)
    return 0


def _record(line: QuotaLine) -> dict[str, Any]:
    cells = (line.purpose, line.size, line.quota, line.used, line.limit, line.needed, line.missing)
    return dict(zip(COLUMNS, cells))


def _limit(limit: int | None) -> str:
    return "not listed" if limit is None else str(limit)
