"""Delete the resources whose tags say that this product created them, and nothing else."""

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
from .cloud import CONNECTIONS_API_VERSION, EXPIRES_TAG, Cloud, is_expired, state_text
from .faults import find_resource
from .inventory import RESOURCE_TYPES, InventoryItem, deployments_of, expiry_date, read_inventory
from .plan import Plan, Step

# Kinds of resources to delete, in this order: each before the resources that it depends on. Workspace,
# registry and storage contain the data, the jobs' history and the images, so only EVERYTHING has them.
ENDPOINT_ONLY = ("autoscale setting", "endpoint")
EXPIRING = ("autoscale setting", "endpoint", "cluster")
LOCAL_CONNECTION = "local connection"
RESOURCES_IN_USE = (
    "autoscale setting",
    "endpoint",
    "connection",
    LOCAL_CONNECTION,
    "cluster",
    "role assignment",
    "identity",
)
WORKSPACE_PARTS = (
    "registry",
    "application insights",
    "log analytics",
    "key vault",
    "storage account",
)
EVERYTHING = (*RESOURCES_IN_USE, "workspace", *WORKSPACE_PARTS, "resource group")
DELETING = "Deleting"  # provisioning state
POLL_S = 5.0
DELETION_S = 3600.0


@dataclass(frozen=True)
class KeptResource:
    """A resource of this product that stays, and the reason."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class TeardownPlan:
    """The resources of this product that are deleted, and those that stay.

    Attributes:
        plan: the deletions.
        kept: the resources that stay.
    """

    plan: Plan
    kept: list[KeptResource]


def plan_teardown(
    cloud: Cloud, kinds: Sequence[str] = RESOURCES_IN_USE, *, expired: bool = False
) -> TeardownPlan:
    """List the resources and plan the deletions.

    Args:
        cloud: clients and configuration.
        kinds: ENDPOINT_ONLY, EXPIRING, RESOURCES_IN_USE or EVERYTHING.
        expired: delete only expired resources, and no cluster with running nodes.

    Raises:
        OpsError: Azure does not answer, or refuses.
    """
    items = read_inventory(cloud)
    if LOCAL_CONNECTION in kinds:
        items += _local_connection(cloud)
    today = datetime.now(timezone.utc).date().isoformat()
    doomed: list[InventoryItem] = []
    kept: list[KeptResource] = []
    for item in _owned(items, kinds):
        if expired and not is_expired({EXPIRES_TAG: expiry_date(items, item)}, today):
            continue
        if obstacle := _obstacle(items, item, doomed, expired):
            kept.append(KeptResource(item.kind, item.name, obstacle))
        else:
            doomed.append(item)
    if kinds == RESOURCES_IN_USE:
        kept += _kept_models(items)
    return TeardownPlan(Plan("down", [_step(cloud, items, item) for item in doomed]), kept)


def _local_connection(cloud: Cloud) -> list[InventoryItem]:
    """Return Prompt flow's local connection if it leads to the configured endpoint.

    A host name identifies the endpoint, because an endpoint's name is unique within its region.
    """
    config = cloud.config
    name, region = config.endpoint.name, re.sub(r"\W", "", config.azure.location)
    connection = load_connection(config.connection)
    url = dict(connection.configs).get("endpoint", "") if connection else ""
    if urlsplit(url).hostname != f"{name}.{region}.inference.ml.azure.com".lower():
        return []
    return [InventoryItem(LOCAL_CONNECTION, config.connection, True, parent=name)]


def _kept_models(items: Sequence[InventoryItem]) -> list[KeptResource]:
    names = ", ".join(item.name for item in items if item.kind == "model" and item.owned)
    reason = "they cost no more than their storage, and can be deployed again"
    return [KeptResource("models", names, reason)] if names else []


def _owned(items: Sequence[InventoryItem], kinds: Sequence[str]) -> list[InventoryItem]:
    owned = [item for item in items if item.owned and item.kind in kinds]
    return sorted(owned, key=lambda item: kinds.index(item.kind))


def _obstacle(
    items: Sequence[InventoryItem],
    item: InventoryItem,
    doomed: Sequence[InventoryItem],
    expired: bool,
) -> str:
    """Return why a resource of this product has to stay, "" if it can be deleted."""
    if expired and item.kind == "cluster" and item.instances:
        return f"{item.instances} nodes are running"
    staying = [other for other in items if other not in doomed]
    if item.kind == LOCAL_CONNECTION:
        endpoints = [other.name for other in staying if other.kind == "endpoint"]
        return "its endpoint stays" if item.parent in endpoints else ""
    if item.kind in WORKSPACE_PARTS:
        workspaces = [other for other in staying if other.kind == "workspace" and other.owned]
        return "its workspace stays" if workspaces else ""
    # A deployment is deleted with its endpoint.
    lost = [
        content.name
        for content in _contents(items, item)
        if not content.owned or (content.kind != "deployment" and content in staying)
    ]
    return f"{', '.join(lost)} would be deleted with it" if lost else ""


def _contents(items: Sequence[InventoryItem], item: InventoryItem) -> list[InventoryItem]:
    """Return the resources that Azure deletes together with the item."""
    if item.kind == "endpoint":
        return deployments_of(items, item)
    content_kinds = {
        "workspace": ("endpoint", "cluster"),
        "resource group": ("other", *(kind for kind, _ in RESOURCE_TYPES.values())),
    }
    return [other for other in items if other.kind in content_kinds.get(item.kind, ())]


def _step(cloud: Cloud, items: Sequence[InventoryItem], item: InventoryItem) -> Step:
    what = f"{item.kind} {item.name}"
    deployments = [
        f"{deployment.name}: {deployment.size} x {deployment.instances}"
        for deployment in deployments_of(items, item)
    ]
    if item.kind == "endpoint" and deployments:
        what += f" with its deployments ({', '.join(deployments)})"
    if item.state == DELETING:
        what += ", whose deletion has begun"
    usual = "5 to 15 min" if item.kind in READ else ""  # the step waits until they are gone
    return Step(what, lambda: False, lambda: _delete(cloud, item), verb="delete", usual=usual)


def _delete(cloud: Cloud, item: InventoryItem) -> None:
    """Delete a resource unless a previous run began to; if it has machines, wait until it is gone.

    Its machines are paid for until then.

    Raises:
        OpsError: the deletion failed, or has not ended after `DELETION_S`.
    """
    if item.state != DELETING:
        delete = DELETE.get(item.kind, _delete_by_id)
        find_resource(lambda: delete(cloud, item))  # it may be gone already
    if item.kind not in READ:
        return
    try:
        remaining = wait_until(
            lambda: find_resource(lambda: READ[item.kind](cloud, item)),
            lambda resource: resource is None or resource.provisioning_state == "Failed",
            timeout_s=DELETION_S,
            poll_s=POLL_S,
        )
    except WaitTimeoutError as error:
        remaining = error.last
    if remaining is not None:
        state = state_text(remaining.provisioning_state)
        what = f"the {item.kind} {item.name} still exists ({state})"
        raise OpsError(what, "Look at it in the studio, then run this again.")


def _delete_endpoint(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.ml.online_endpoints.begin_delete(item.name).result()


def _delete_connection(cloud: Cloud, item: InventoryItem) -> Any:
    path = f"{cloud.workspace_path}/connections/{item.name}"
    return cloud.rest("DELETE", path, api=CONNECTIONS_API_VERSION)


def _delete_local_connection(cloud: Cloud, item: InventoryItem) -> Any:
    # It may lead to another endpoint by now: the command asked, and deleted the endpoint first.
    return _local_connection(cloud) and delete_connection(item.name)


def _delete_cluster(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.ml.compute.begin_delete(item.name).result()


def _delete_role(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.authorization.role_assignments.delete_by_id(item.id)


def _delete_workspace(cloud: Cloud, item: InventoryItem) -> Any:
    # Permanently: otherwise its name stays taken for two weeks. Its storage and the like are deleted by
    # their own tags.
    begin = cloud.ml.workspaces.begin_delete
    return begin(item.name, delete_dependent_resources=False, permanently_delete=True).result()


def _delete_group(cloud: Cloud, item: InventoryItem) -> Any:
    return cloud.resources.resource_groups.begin_delete(item.name).result()


def _delete_by_id(cloud: Cloud, item: InventoryItem) -> Any:
    api = dict(RESOURCE_TYPES.values())[item.kind]
    return cloud.resources.resources.begin_delete_by_id(item.id, api_version=api).result()


# How to read the resources that have machines.
READ: dict[str, Callable[[Cloud, InventoryItem], Any]] = {
    "endpoint": lambda cloud, item: cloud.ml.online_endpoints.get(item.name),
    "cluster": lambda cloud, item: cloud.ml.compute.get(item.name),
}
# How to delete a resource; all other kinds are deleted by their resource id.
DELETE: dict[str, Callable[[Cloud, InventoryItem], Any]] = {
    "endpoint": _delete_endpoint,
    "connection": _delete_connection,
    LOCAL_CONNECTION: _delete_local_connection,
    "cluster": _delete_cluster,
    "role assignment": _delete_role,
    "workspace": _delete_workspace,
    "resource group": _delete_group,
}
