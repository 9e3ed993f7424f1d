"""What runs, since when, for whom, and what it is paid for by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.table import Table

from .cloud import Cloud
from .inventory import InventoryItem, expiry_date, read_inventory

SHOWN = ("endpoint", "deployment", "cluster")
COLUMNS = ("kind", "name", "machines", "state", "traffic", "since", "expires", "owner")


def status_rows(cloud: Cloud) -> list[dict[str, Any]]:
    """Every endpoint, deployment and cluster that this product made, as plain values; `expires` of an
    endpoint is that of its last deployment."""
    items = read_inventory(cloud)
    return [
        {**_plain(item), "expires": expiry_date(items, item), "owner": item.owner}
        for item in items
        if item.ours and item.kind in SHOWN
    ]


def hourly_cost(found: Iterable[dict[str, Any]]) -> dict[str, int]:
    """VM size -> machines that are up now, each paid for by the hour."""
    counted: Counter[str] = Counter()
    for row in found:
        counted[row["size"]] += row["instances"]
    return {size: count for size, count in sorted(counted.items()) if count}


def status_table(found: Iterable[dict[str, Any]]) -> Table:
    """The rows for a terminal."""
    shown = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for row in found:
        machines = f"{row['size']} x {row['instances']}" if row["size"] else ""
        traffic = "" if row["traffic"] is None else f"{row['traffic']} %"
        cells = {**row, "machines": machines, "traffic": traffic}
        shown.add_row(*(str(cells[column]) for column in COLUMNS))
    return shown


def _plain(item: InventoryItem) -> dict[str, Any]:
    return {
        name: value
        for name, value in asdict(item).items()
        if name not in ("ours", "tags", "id", "parent")
    }
