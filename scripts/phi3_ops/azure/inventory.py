"""The resources of the workspace and its resource group, and which of them this product created."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cloud import (
    AUTOSCALE_API_VERSION,
    CONNECTIONS_API_VERSION,
    EXPIRES_TAG,
    OWNER_TAG,
    Cloud,
    state_text,
)
from .faults import find_resource, named_errors
from .roles import ROLE_NAMES, granted_roles

COMPUTE_API = "2023-08-01-preview"
# ARM type -> kind of InventoryItem, and the API version for deletion.
RESOURCE_TYPES = {
    "microsoft.managedidentity/userassignedidentities": ("identity", "2024-11-30"),
    "microsoft.containerregistry/registries": ("registry", "2023-07-01"),
    "microsoft.machinelearningservices/workspaces": ("workspace", ""),
    "microsoft.insights/autoscalesettings": ("autoscale setting", AUTOSCALE_API_VERSION),
    "microsoft.insights/components": ("application insights", "2020-02-02"),
    "microsoft.operationalinsights/workspaces": ("log analytics", "2022-10-01"),
    "microsoft.keyvault/vaults": ("key vault", "2023-07-01"),
    "microsoft.storage/storageaccounts": ("storage account", "2023-01-01"),
}
# Resources of the group that are left out: those that the workspace lists, and those that Azure creates
# with application insights. Type -> prefix of their names.
BYPRODUCTS = {
    "microsoft.machinelearningservices/workspaces/onlineendpoints": "",
    "microsoft.machinelearningservices/workspaces/onlineendpoints/deployments": "",
    "microsoft.insights/actiongroups": "Application Insights Smart Detection",
    "microsoft.alertsmanagement/smartdetectoralertrules": "Failure Anomalies",
}


@dataclass(frozen=True)
class InventoryItem:
    """One resource that Azure lists.

    Attributes:
        kind: "endpoint", "deployment", "model", "cluster", "connection", "role assignment", "resource
            group", or a kind of RESOURCE_TYPES; "other" for types that this product never creates.
        name: name of the resource.
        owned: whether the tags say that this product created the resource for this workspace.
        tags: all tags.
        size: VM size; "" if the resource has no machines.
        instances: number of machines that are up now, and are paid for.
        state: provisioning state.
        traffic: a deployment's percentage of the traffic.
        since: creation time, ISO 8601.
        parent: name of a deployment's endpoint.
        id: resource id.
    """

    kind: str
    name: str
    owned: bool
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
        """The owner tag, "" without one."""
        return self.tags.get(OWNER_TAG, "")

    @property
    def expires(self) -> str:
        """The expiry tag, an ISO date; "" without one."""
        return self.tags.get(EXPIRES_TAG, "")


def read_inventory(cloud: Cloud) -> list[InventoryItem]:
    """Return the resources of the workspace and its resource group.

    A workspace or a group that does not exist contains nothing.

    Raises:
        OpsError: Azure does not answer, or refuses.
    """
    with named_errors("listing the resources"):
        readers = (_endpoints, _models, _connections, _clusters, _group)
        return [item for reader in readers for item in reader(cloud)]


def deployments_of(items: Sequence[InventoryItem], endpoint: InventoryItem) -> list[InventoryItem]:
    """Return an endpoint's deployments."""
    return [item for item in items if item.kind == "deployment" and item.parent == endpoint.name]


def expiry_date(items: Sequence[InventoryItem], item: InventoryItem) -> str:
    """Return the ISO date on which an item expires, "" for never.

    An endpoint expires with the last of its deployments.
    """
    dates = [item.expires, *(deployment.expires for deployment in deployments_of(items, item))]
    return max(dates) if item.kind == "endpoint" and all(dates) else item.expires


def _endpoints(cloud: Cloud) -> Iterator[InventoryItem]:
    endpoints = find_resource(lambda: list(cloud.ml.online_endpoints.list())) or []
    for endpoint in endpoints:
        tags = dict(endpoint.tags or {})
        yield InventoryItem(
            "endpoint",
            endpoint.name,
            cloud.owns(tags),
            tags,
            state=state_text(endpoint.provisioning_state),
            since=str((endpoint.properties or {}).get("createdAt", ""))[:19],
        )
        yield from _deployments(cloud, endpoint)


def _deployments(cloud: Cloud, endpoint: Any) -> Iterator[InventoryItem]:
    list_all = cloud.ml.online_deployments.list
    for deployment in find_resource(lambda: list(list_all(endpoint_name=endpoint.name))) or []:
        tags = dict(deployment.tags or {})
        created = getattr(deployment.creation_context, "created_at", None)
        yield InventoryItem(
            "deployment",
            deployment.name,
            cloud.owns(tags),
            tags,
            size=str(deployment.instance_type or ""),
            instances=int(deployment.instance_count or 0),
            state=state_text(deployment.provisioning_state),
            traffic=int((endpoint.traffic or {}).get(deployment.name, 0)),
            since=created.isoformat()[:19] if created else "",
            parent=endpoint.name,
        )


def _models(cloud: Cloud) -> Iterator[InventoryItem]:
    """Yield the versions of the configured model."""
    name = cloud.config.endpoint.model
    for model in find_resource(lambda: list(cloud.ml.models.list(name=name))) or []:
        tags = dict(model.tags or {})
        yield InventoryItem("model", f"{model.name}:{model.version}", cloud.owns(tags), tags)


def _connections(cloud: Cloud) -> Iterator[InventoryItem]:
    path = f"{cloud.workspace_path}/connections"
    list_all = cloud.rest_list
    for connection in (
        find_resource(lambda: list(list_all(path, api=CONNECTIONS_API_VERSION))) or []
    ):
        tags = dict(connection["properties"].get("metadata") or {})
        yield InventoryItem("connection", connection["name"], cloud.owns(tags), tags)


def _clusters(cloud: Cloud) -> Iterator[InventoryItem]:
    for cluster in find_resource(lambda: list(cloud.ml.compute.list())) or []:
        tags = dict(cluster.tags or {})
        owned = cloud.owns(tags)
        details = _cluster_details(cloud, cluster.name) if owned else {}
        yield InventoryItem(
            "cluster",
            cluster.name,
            owned,
            tags,
            size=str(getattr(cluster, "size", None) or ""),
            instances=int((details.get("properties") or {}).get("currentNodeCount") or 0),
            state=state_text(cluster.provisioning_state),
            since=str(details.get("createdOn", ""))[:19],
        )


def _cluster_details(cloud: Cloud, name: str) -> dict[str, Any]:
    """Return properties that the SDK's object leaves out: running nodes and creation time."""
    path = f"{cloud.workspace_path}/computes/{name}"
    answer = find_resource(lambda: cloud.rest("GET", path, api=COMPUTE_API)) or {}
    return answer.get("properties") or {}


def _group(cloud: Cloud) -> Iterator[InventoryItem]:
    name = cloud.config.azure.resource_group
    group = find_resource(lambda: cloud.resources.resource_groups.get(name))
    if group is None:
        return
    for resource in cloud.resources.resources.list_by_resource_group(name):
        arm_type, tags = resource.type.lower(), dict(resource.tags or {})
        if arm_type in BYPRODUCTS and resource.name.startswith(BYPRODUCTS[arm_type]):
            continue
        kind, _ = RESOURCE_TYPES.get(arm_type, ("other", ""))
        yield InventoryItem(kind, resource.name, cloud.owns(tags), tags, id=resource.id)
    yield from _roles(cloud)
    tags = dict(group.tags or {})
    yield InventoryItem("resource group", name, cloud.owns(tags), tags, id=cloud.group_path)


def _roles(cloud: Cloud) -> Iterator[InventoryItem]:
    group, name = cloud.config.azure.resource_group, cloud.config.identity.name
    identity = find_resource(lambda: cloud.identities.get(group, name))
    for assignment in granted_roles(cloud, identity.principal_id) if identity else ():
        role_id = str(assignment.role_definition_id).rsplit("/", 1)[-1]
        scope_name = str(assignment.scope).rsplit("/", 1)[-1]
        title = f"{ROLE_NAMES.get(role_id, role_id)} of {name} on {scope_name}"
        yield InventoryItem("role assignment", title, True, id=assignment.id)
