"""The end: deletes what the tags say that this product made, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from ..errors import OpsError
from ..pf import delete_connection, load_connection
from ..waiting import WaitTimeoutError, wait_until
from .cloud import CONNECTIONS_API_VERSION, EXPIRES_TAG, Cloud, find_resource, is_expired
from .inventory import RESOURCE_TYPES, InventoryItem, expiry_date, read_inventory, serving_endpoints
from .plan import Plan, Step

# What to delete, in this order: each before what it rests on. Workspace, registry and storage hold the
# data, the jobs' history and the images, so they stay unless everything is asked for.
ENDPOINT_ONLY = ("endpoint",)
EXPIRING = ("endpoint", "cluster")
LOCAL = "local connection"
RESOURCES_IN_USE = ("endpoint", "connection", LOCAL, "cluster", "role assignment", "identity")
BENEATH = ("registry", "application insights", "log analytics", "key vault", "storage account")
EVERYTHING = (*RESOURCES_IN_USE, "workspace", *BENEATH, "resource group")
DELETING = "Deleting"
POLL_S = 5.0
GONE_S = 3600.0


@dataclass(frozen=True)
class TeardownPlan:
    """What is to go, and what of ours is to stay.

    Attributes:
        plan: the deletions.
        kept: what stays, with the reason, a line each.
    """

    plan: Plan
    kept: list[str]


def plan_teardown(
    cloud: Cloud, kinds: Sequence[str] = RESOURCES_IN_USE, *, expired: bool = False
) -> TeardownPlan:
    """Look at what is there and plan its end.

    Args:
        cloud: where.
        kinds: ENDPOINT_ONLY, EXPIRING, WORKING or EVERYTHING.
        expired: only what has expired, and no cluster that is at work.

    Raises:
        OpsError: Azure does not answer, or refuses.
    """
    items = read_inventory(cloud)
    if LOCAL in kinds:
        items += _local(cloud)
    today = datetime.now(timezone.utc).date().isoformat()
    going: list[InventoryItem] = []
    kept: list[str] = []
    for item in _ours(items, kinds):
        if expired and not is_expired({EXPIRES_TAG: expiry_date(items, item)}, today):
            continue
        why = _obstacle(items, item, going, expired)
        if why:
            kept.append(f"{item.kind} {item.name}: {why}")
        else:
            going.append(item)
    if kinds == RESOURCES_IN_USE:
        kept += _models(items)
    return TeardownPlan(Plan("down", [_step(cloud, items, item) for item in going]), kept)


def _local(cloud: Cloud) -> list[InventoryItem]:
    """Prompt flow's own connection, where it leads to the configured endpoint: names are given once a
    region, so that it can be no other's."""
    config = cloud.config
    name, region = config.endpoint.name, re.sub(r"\W", "", config.azure.location)
    there = load_connection(config.connection)
    leads_to = urlsplit(dict(there.configs).get("endpoint", "") if there else "").hostname
    ours = leads_to == f"{name}.{region}.inference.ml.azure.com".lower()
    return [InventoryItem(LOCAL, config.connection, True, parent=name)] if ours else []


def _models(items: Sequence[InventoryItem]) -> list[str]:
    names = ", ".join(item.name for item in items if item.kind == "model" and item.ours)
    why = "they cost no more than their storage, and can be deployed again"
    return [f"models {names}: {why}"] if names else []


def _ours(items: Sequence[InventoryItem], kinds: Sequence[str]) -> list[InventoryItem]:
    chosen = [item for item in items if item.ours and item.kind in kinds]
    return sorted(chosen, key=lambda item: kinds.index(item.kind))


def _obstacle(
    items: Sequence[InventoryItem],
    item: InventoryItem,
    going: Sequence[InventoryItem],
    expired: bool,
) -> str:
    """Why a thing of ours has to stay; "" where nothing is in the way."""
    if expired and item.kind == "cluster" and item.instances:
        return f"{item.instances} nodes are at work"
    if item.kind == LOCAL:
        stays = [each for each in items if each.kind == "endpoint" and each not in going]
        return "its endpoint stays" if item.parent in [each.name for each in stays] else ""
    if item.kind in BENEATH:
        stays = [each for each in items if each.kind == "workspace" and each not in going]
        return "its workspace stays" if any(each.ours for each in stays) else ""
    others = [each.name for each in _within(items, item) if not each.ours or _stays(each, going)]
    return f"{', '.join(others)} would go with it" if others else ""


def _within(items: Sequence[InventoryItem], item: InventoryItem) -> list[InventoryItem]:
    """What goes when the thing goes."""
    if item.kind == "endpoint":
        return serving_endpoints(items, item)
    inside = {
        "workspace": ("endpoint", "cluster"),
        "resource group": ("other", *(kind for kind, _ in RESOURCE_TYPES.values())),
    }
    return [each for each in items if each.kind in inside.get(item.kind, ())]


def _stays(item: InventoryItem, going: Sequence[InventoryItem]) -> bool:
    return item.kind != "deployment" and item not in going  # a deployment goes with its endpoint


def _step(cloud: Cloud, items: Sequence[InventoryItem], item: InventoryItem) -> Step:
    what = f"{item.kind} {item.name}"
    inside = [
        f"{each.name}: {each.size} x {each.instances}" for each in serving_endpoints(items, item)
    ]
    if item.kind == "endpoint" and inside:
        what += f" with its deployments ({', '.join(inside)})"
    if item.state == DELETING:
        what += ", which is being deleted"
    return Step(what, lambda: False, lambda: _end(cloud, item), verb="delete")


def _end(cloud: Cloud, item: InventoryItem) -> None:
    """Delete it, and wait until it is gone, be it by a run that was interrupted: as long as it is there,
    its machines are paid for.

    Raises:
        OpsError: it does not go.
    """
    if item.state != DELETING:
        delete = DELETE.get(item.kind, _delete_by_id)
        find_resource(lambda: delete(cloud, item))  # what has gone in the meantime is no error
    if item.kind not in READ:
        return
    try:
        remaining = wait_until(
            lambda: find_resource(lambda: READ[item.kind](cloud, item)),
            lambda resource: resource is None or resource.provisioning_state == "Failed",
            timeout_s=GONE_S,
            poll_s=POLL_S,
        )
    except WaitTimeoutError as error:
        remaining = error.last
    if remaining is not None:
        what = f"the {item.kind} {item.name} still exists ({remaining.provisioning_state})"
        raise OpsError(what, "See it in the studio; run this again.")


def _delete_endpoint(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.ml.online_endpoints.begin_delete(item.name).result()


def _delete_connection(cloud: Cloud, item: InventoryItem) -> Any:
    path = f"{cloud.workspace_path}/connections/{item.name}"
    return cloud.rest("DELETE", path, api=CONNECTIONS_API_VERSION)


def _delete_cluster(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.ml.compute.begin_delete(item.name).result()


def _delete_role(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.authorization.role_assignments.delete_by_id(item.id)


def _delete_workspace(cloud: Cloud, item: InventoryItem) -> Any:
    # For good: a workspace that is only set aside keeps its name for two weeks. What it rests on goes by
    # its own tags, not with it.
    begin = cloud.ml.workspaces.begin_delete
    return begin(item.name, delete_dependent_resources=False, permanently_delete=True).result()


def _delete_group(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.resources.resource_groups.begin_delete(item.name).result()


def _delete_by_id(cloud: Cloud, item: InventoryItem) -> Any:
    api = dict(RESOURCE_TYPES.values())[item.kind]
    return cloud.resources.resources.begin_delete_by_id(item.id, api_version=api).result()


# What has machines.
READ: dict[str, Callable[[Cloud, InventoryItem], Any]] = {
    "endpoint": lambda cloud, item: cloud.ml.online_endpoints.get(item.name),
    "cluster": lambda cloud, item: cloud.ml.compute.get(item.name),
}
DELETE: dict[str, Callable[[Cloud, InventoryItem], Any]] = {
    "endpoint": _delete_endpoint,
    "connection": _delete_connection,
    LOCAL: lambda cloud, item: delete_connection(item.name),
    "cluster": _delete_cluster,
    "role assignment": _delete_role,
    "workspace": _delete_workspace,
    "resource group": _delete_group,
}
