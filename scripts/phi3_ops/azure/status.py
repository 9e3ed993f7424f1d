"""What this product created in the workspace, and the machines that are paid for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .cloud import SCALE_TAG, Cloud
from .inventory import InventoryItem, expiry_date, read_inventory

KINDS = ("endpoint", "deployment", "autoscale setting", "cluster")


@dataclass(frozen=True)
class StatusItem:
    """One endpoint, deployment, autoscale setting or cluster.

    Attributes:
        kind: one of `KINDS`.
        name: name of the resource.
        size: VM size; "" for an endpoint.
        instances: number of machines that are up now.
        state: provisioning state.
        traffic: a deployment's percentage of the traffic.
        since: creation time, ISO 8601.
        expires: ISO date, "" for never; an endpoint expires with the last of its deployments.
        owner: value of the owner tag.
        scale: fewest and most machines of an autoscale setting, as in "1 to 3"; "" for others.
    """

    kind: str
    name: str
    size: str
    instances: int
    state: str
    traffic: int | None
    since: str
    expires: str
    owner: str
    scale: str = ""


@dataclass(frozen=True)
class Status:
    """The resources that this product created in the workspace."""

    items: list[StatusItem]

    @property
    def hourly(self) -> dict[str, int]:
        """VM size -> number of machines that are up now; each is paid for by the hour."""
        machines: Counter[str] = Counter()
        for item in self.items:
            machines[item.size] += item.instances
        return {size: count for size, count in sorted(machines.items()) if count}


def read_status(cloud: Cloud) -> Status:
    """Return the endpoints, deployments, autoscale settings and clusters that this product created.

    Raises:
        OpsError: Azure does not answer, or refuses.
    """
    inventory = read_inventory(cloud)
    items = [item for item in inventory if item.owned and item.kind in KINDS]
    return Status([_status_item(item, expiry_date(inventory, item)) for item in items])


def _status_item(item: InventoryItem, expires: str) -> StatusItem:
    return StatusItem(
        kind=item.kind,
        name=item.name,
        size=item.size,
        instances=item.instances,
        state=item.state,
        traffic=item.traffic,
        since=item.since,
        expires=expires,
        owner=item.owner,
        scale=item.tags.get(SCALE_TAG, ""),
    )
