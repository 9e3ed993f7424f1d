"""What there is in the workspace and its resource group, and whose it is by its tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cloud import (
    CONNECTIONS_API_VERSION,
    EXPIRES_TAG,
    OWNER_TAG,
    Cloud,
    find_resource,
    named_errors,
)
from .roles import ROLE_NAMES, granted_roles

COMPUTE_API = "2023-08-01-preview"
# ARM type -> what it is called here, and the API version that deletes it.
RESOURCE_TYPES = {
    "microsoft.managedidentity/userassignedidentities": ("identity", "2024-11-30"),
    "microsoft.containerregistry/registries": ("registry", "2023-07-01"),
    "microsoft.machinelearningservices/workspaces": ("workspace", ""),
    "microsoft.insights/components": ("application insights", "2020-02-02"),
    "microsoft.operationalinsights/workspaces": ("log analytics", "2022-10-01"),
    "microsoft.keyvault/vaults": ("key vault", "2023-07-01"),
    "microsoft.storage/storageaccounts": ("storage account", "2023-01-01"),
}
# Listed as resources of the group, but read in the workspace; or put there by Azure itself beside
# application insights: type -> how their names begin.
BYPRODUCTS = {
    "microsoft.machinelearningservices/workspaces/onlineendpoints": "",
    "microsoft.machinelearningservices/workspaces/onlineendpoints/deployments": "",
    "microsoft.insights/actiongroups": "Application Insights Smart Detection",
    "microsoft.alertsmanagement/smartdetectoralertrules": "Failure Anomalies",
}


@dataclass(frozen=True)
class InventoryItem:
    """One thing that Azure lists.

    Attributes:
        kind: "endpoint", "deployment", "model", "cluster", "connection", "role assignment", "resource
            group", or one of TYPES; "other" for what this product never makes.
        name: its name.
        ours: whether the tags say that this product made it for this workspace.
        tags: all of them.
        size: VM size; "" where it has no machines.
        instances: machines that are up now, and paid for.
        state: the provisioning state.
        traffic: a deployment's percentage.
        since: when it was created, ISO 8601.
        parent: the endpoint of a deployment.
        id: resource id.
    """

    kind: str
    name: str
    ours: bool
    tags: dict[str, str] = field(default_factory=dict)
    size: str = ""
    instances: int = 0
    state: str = ""
    traffic: int | None = None
    since: str = ""
    parent: str = ""
    id: str = ""

    @property
    def owner(self) -> str:
        return self.tags.get(OWNER_TAG, "")

    @property
    def expires(self) -> str:
        """ISO date, "" where it has none."""
        return self.tags.get(EXPIRES_TAG, "")


def read_inventory(cloud: Cloud) -> list[InventoryItem]:
    """Everything in the workspace that costs or was made, and in its resource group.

    A workspace or group that is not there holds nothing.

    Raises:
        OpsError: Azure does not answer, or refuses.
    """
    with named_errors("reading what is there"):
        parts = (_endpoints, _models, _connections, _clusters, _group)
        return [item for part in parts for item in part(cloud)]


def serving_endpoints(
    items: Sequence[InventoryItem], endpoint: InventoryItem
) -> list[InventoryItem]:
    """An endpoint's deployments."""
    return [each for each in items if each.kind == "deployment" and each.parent == endpoint.name]


def expiry_date(items: Sequence[InventoryItem], item: InventoryItem) -> str:
    """When it expires: an endpoint with the last of its deployments. "" for never."""
    dates = [item.expires, *(each.expires for each in serving_endpoints(items, item))]
    return max(dates) if item.kind == "endpoint" and all(dates) else item.expires


def _endpoints(cloud: Cloud) -> Iterator[InventoryItem]:
    endpoints = find_resource(lambda: list(cloud.ml.online_endpoints.list())) or []
    for each in endpoints:
        tags = dict(each.tags or {})
        yield InventoryItem(
            "endpoint",
            each.name,
            cloud.owns(tags),
            tags,
            state=str(each.provisioning_state or ""),
            since=str((each.properties or {}).get("createdAt", ""))[:19],
        )
        yield from _deployments(cloud, each)


def _deployments(cloud: Cloud, endpoint: Any) -> Iterator[InventoryItem]:
    deployments = cloud.ml.online_deployments
    for each in find_resource(lambda: list(deployments.list(endpoint_name=endpoint.name))) or []:
        tags = dict(each.tags or {})
        created = getattr(each.creation_context, "created_at", None)
        yield InventoryItem(
            "deployment",
            each.name,
            cloud.owns(tags),
            tags,
            size=str(each.instance_type or ""),
            instances=int(each.instance_count or 0),
            state=str(each.provisioning_state or ""),
            traffic=int((endpoint.traffic or {}).get(each.name, 0)),
            since=created.isoformat()[:19] if created else "",
            parent=endpoint.name,
        )


def _models(cloud: Cloud) -> Iterator[InventoryItem]:
    """The versions of the configured model."""
    name = cloud.config.endpoint.model
    for each in find_resource(lambda: list(cloud.ml.models.list(name=name))) or []:
        tags = dict(each.tags or {})
        yield InventoryItem("model", f"{each.name}:{each.version}", cloud.owns(tags), tags)


def _connections(cloud: Cloud) -> Iterator[InventoryItem]:
    path = f"{cloud.workspace_path}/connections"
    found = find_resource(lambda: cloud.rest("GET", path, api=CONNECTIONS_API_VERSION)) or {}
    for each in found.get("value", []):
        tags = dict(each["properties"].get("metadata") or {})
        yield InventoryItem("connection", each["name"], cloud.owns(tags), tags)


def _clusters(cloud: Cloud) -> Iterator[InventoryItem]:
    for each in find_resource(lambda: list(cloud.ml.compute.list())) or []:
        tags = dict(each.tags or {})
        ours = cloud.owns(tags)
        more = _cluster(cloud, each.name) if ours else {}
        yield InventoryItem(
            "cluster",
            each.name,
            ours,
            tags,
            size=str(getattr(each, "size", None) or ""),
            instances=int((more.get("properties") or {}).get("currentNodeCount") or 0),
            state=str(each.provisioning_state or ""),
            since=str(more.get("createdOn", ""))[:19],
        )


def _cluster(cloud: Cloud, name: str) -> dict[str, Any]:
    """What the SDK's own object leaves out: the nodes that are up, and since when it is there."""
    path = f"{cloud.workspace_path}/computes/{name}"
    answer = find_resource(lambda: cloud.rest("GET", path, api=COMPUTE_API)) or {}
    return answer.get("properties") or {}


def _group(cloud: Cloud) -> Iterator[InventoryItem]:
    group = cloud.config.azure.resource_group
    there = find_resource(lambda: cloud.resources.resource_groups.get(group))
    if there is None:
        return
    listed = cloud.resources.resources.list_by_resource_group(group)
    for each in listed:
        arm_type, tags = each.type.lower(), dict(each.tags or {})
        if arm_type in BYPRODUCTS and each.name.startswith(BYPRODUCTS[arm_type]):
            continue
        kind, _ = RESOURCE_TYPES.get(arm_type, ("other", ""))
        yield InventoryItem(kind, each.name, cloud.owns(tags), tags, id=each.id)
    yield from _roles(cloud)
    tags = dict(there.tags or {})
    yield InventoryItem("resource group", group, cloud.owns(tags), tags, id=cloud.group_path)


def _roles(cloud: Cloud) -> Iterator[InventoryItem]:
    where, name = cloud.config.azure, cloud.config.identity.name
    identity = find_resource(lambda: cloud.identities.get(where.resource_group, name))
    for each in granted_roles(cloud, identity.principal_id) if identity else ():
        role = str(each.role_definition_id).rsplit("/", 1)[-1]
        on = str(each.scope).rsplit("/", 1)[-1]
        called = f"{ROLE_NAMES.get(role, role)} of {name} on {on}"
        yield InventoryItem("role assignment", called, True, id=each.id)
