"""The resource group, workspace, identity, cluster and roles that fine-tuning and serving rest on.

What is there already is used as it is: never changed, never tagged.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import paths
from ..errors import OpsError
from ..waiting import WaitTimeoutError, wait_until
from .cloud import Cloud, find_resource, named_errors
from .plan import Plan, Step
from .quota import cluster_need, endpoint_need, refuse_retired, require_quota
from .roles import CONTRIBUTOR, LEAST_ROLES, Role, grant_role, has_role

WORKSPACE_FILE = paths.AZURE / "workspace.yml"
COMPUTE_FILE = paths.AZURE / "compute.yml"
REGISTRY_API = "2023-07-01"
DEPLOYMENTS_API = "2020-06-01"
# As Azure ML itself makes one where a workspace has none: with the admin account, by which clusters sign
# in. Contract: "Set up authentication between Azure Machine Learning and other services".
REGISTRY_SKU, REGISTRY_PROPERTIES = "Basic", {"adminUserEnabled": True}
# What an interrupted creation leaves behind -> where a workspace takes it.
PARTS = {
    "microsoft.storage/storageaccounts": "storage_account",
    "microsoft.keyvault/vaults": "key_vault",
    "microsoft.insights/components": "application_insights",
}
ENDED = ("Succeeded", "Failed", "Canceled")
POLL_S = 5.0
CREATION_S = 1800.0


@dataclass(frozen=True)
class ProvisionOptions:
    """What else to bring about.

    Attributes:
        create_group: make the resource group where there is none.
        contributor: the tutorials' Contributor on the resource group, beside the least roles.
    """

    create_group: bool = False
    contributor: bool = False


def registry_name(subscription: str, group: str, workspace: str) -> str:
    """The registry's name: the same for the same workspace, and one that nobody else has.

    Letters and digits, 5 to 50. Contract: "Naming rules and restrictions for Azure resources".
    """
    letters = re.sub(r"[^a-z0-9]", "", workspace.lower())[:24]
    place = f"{subscription}/{group}/{workspace}".lower()
    return f"{letters}{uuid.uuid5(uuid.NAMESPACE_URL, place).hex[:12]}"


class Provision:
    """Brings about what the configuration names.

    Args:
        cloud: where.
        options: what else.
    """

    def __init__(self, cloud: Cloud, options: ProvisionOptions) -> None:
        self.cloud = cloud
        self.options = options
        self.where = cloud.config.azure

    def plan(self) -> Plan:
        """All steps, after a look at what would stop them halfway.

        Roles come last: many may create everything else and not grant.

        Raises:
            OpsError: there is no resource group, a size is retired, quota is short, or what is there is
                not what the configuration says.
        """
        with named_errors("provision"):
            workspace, cluster = self._workspace(), self._cluster()
            self._check(workspace, cluster)
        steps = [
            Step(
                f"resource group {self.where.resource_group}", self._has_group, self._create_group
            ),
            Step(
                f"workspace {self.where.workspace} (with storage account, key vault and application "
                "insights)",
                self._has_workspace,
                self._create_workspace,
            ),
            Step(
                f"identity {self.cloud.config.identity.name}",
                lambda: self._identity() is not None,
                self._create_identity,
            ),
            Step(
                self._cluster_text(cluster),
                lambda: _is_up(self._cluster()),
                self._create_cluster,
            ),
        ]
        registry = self._new_registry() if workspace is None else workspace.container_registry
        if registry:  # Azure ML makes one for a workspace that is there without
            name = registry.rsplit("/", 1)[-1]
            step = Step(f"container registry {name}", self._has_registry, self._create_registry)
            steps.insert(1, step)
        wanted = [*LEAST_ROLES, *([CONTRIBUTOR] if self.options.contributor else [])]
        return Plan("provision", steps + [self._role(role) for role in wanted])

    def _check(self, workspace: Any, cluster: Any) -> None:
        group, region = self.where.resource_group, self.where.location
        if not self.options.create_group and not self._has_group():
            raise OpsError(
                f"there is no resource group {group}", "Give --create-group, or name another."
            )
        if workspace is not None and _plain(workspace.location) != _plain(region):
            raise OpsError(
                f"the workspace {workspace.name} is in {workspace.location}, not in {region}",
                f"Set azure.location to {workspace.location}.",
            )
        config = self.cloud.config
        refuse_retired([cluster_need(config), endpoint_need(config)])
        if cluster is None:
            require_quota(self.cloud, [cluster_need(config)])

    # -- resource group and registry -----------------------------------------------------------------

    def _has_group(self) -> bool:
        groups = self.cloud.resources.resource_groups
        return find_resource(lambda: groups.get(self.where.resource_group)) is not None

    def _create_group(self) -> None:
        body = {"location": self.where.location, "tags": self.cloud.tags()}
        self.cloud.resources.resource_groups.create_or_update(self.where.resource_group, body)

    def _new_registry(self) -> str:
        where = self.where
        name = registry_name(where.subscription_id, where.resource_group, where.workspace)
        return f"{self.cloud.group_path}/providers/Microsoft.ContainerRegistry/registries/{name}"

    def _has_registry(self) -> bool:
        if self._workspace() is not None:
            return True
        get = self.cloud.resources.resources.get_by_id
        return (
            find_resource(lambda: get(self._new_registry(), api_version=REGISTRY_API)) is not None
        )

    def _create_registry(self) -> None:
        body = {
            "location": self.where.location,
            "sku": {"name": REGISTRY_SKU},
            "properties": REGISTRY_PROPERTIES,
            "tags": self.cloud.tags(),
        }
        create = self.cloud.resources.resources.begin_create_or_update_by_id
        create(self._new_registry(), body, api_version=REGISTRY_API).result()

    # -- workspace -----------------------------------------------------------------------------------

    def _workspace(self) -> Any:
        return find_resource(lambda: self.cloud.ml.workspaces.get(self.where.workspace))

    def _has_workspace(self) -> bool:
        return self._workspace() is not None and not self._creations()

    def _create_workspace(self) -> None:
        """Create it; where an interrupted run's creation still goes on, wait for that one instead."""
        from azure.ai.ml import load_workspace

        self._wait_for_creations()
        if self._workspace() is not None:
            return
        workspace = load_workspace(WORKSPACE_FILE)
        workspace.name = workspace.display_name = self.where.workspace
        workspace.location = self.where.location
        workspace.container_registry = self._new_registry()
        workspace.tags = self.cloud.tags()
        for name, resource_id in self._parts().items():
            setattr(workspace, name, resource_id)
        self.cloud.ml.workspaces.begin_create(workspace).result()

    def _creations(self) -> list[str]:
        """Template deployments of this workspace that are running; the SDK numbers them at random."""
        path = f"{self.cloud.group_path}/providers/Microsoft.Resources/deployments"
        running = {"$filter": "provisioningState eq 'Running'"}
        found = (
            find_resource(lambda: self.cloud.rest("GET", path, api=DEPLOYMENTS_API, query=running))
            or {}
        )
        numbered = re.compile(rf"{re.escape(self.where.workspace)}-\d+")
        return [
            each["name"]
            for each in found.get("value", [])
            if numbered.fullmatch(each["name"])
            and each["properties"].get("provisioningState") not in ENDED
        ]

    def _wait_for_creations(self) -> None:
        try:
            wait_until(
                self._creations,
                lambda running: not running,
                timeout_s=CREATION_S,
                poll_s=POLL_S,
            )
        except WaitTimeoutError as error:
            what = f"the deployment {error.last[0]} does not end"
            raise OpsError(what, "Look at it in the portal.") from error

    def _parts(self) -> Mapping[str, str]:
        """What an interrupted creation has already made: the SDK would make others beside it."""
        listed = self.cloud.resources.resources.list_by_resource_group(self.where.resource_group)
        ours = [each for each in listed if self.cloud.owns(each.tags)]
        return {PARTS[each.type.lower()]: each.id for each in ours if each.type.lower() in PARTS}

    # -- identity ------------------------------------------------------------------------------------

    def _identity(self) -> Any:
        name = self.cloud.config.identity.name
        return find_resource(lambda: self.cloud.identities.get(self.where.resource_group, name))

    def _create_identity(self) -> None:
        body = {"location": self.where.location, "tags": self.cloud.tags()}
        group, name = self.where.resource_group, self.cloud.config.identity.name
        self.cloud.identities.create_or_update(group, name, body)

    # -- cluster -------------------------------------------------------------------------------------

    def _cluster(self) -> Any:
        """The cluster of that name.

        Raises:
            OpsError: it has other machines than the configuration says.
        """
        wanted = self.cloud.config.compute
        there = find_resource(lambda: self.cloud.ml.compute.get(wanted.name))
        if there is None:
            return None
        size, tier = getattr(there, "size", None), getattr(there, "tier", None)
        if _plain(size) != _plain(wanted.size) or _plain(tier) != _plain(_tier(wanted)):
            raise OpsError(
                f"the cluster {wanted.name} is there with {tier} {size}, not {_tier(wanted)} "
                f"{wanted.size}",
                "Set another compute.name, or delete it.",
            )
        return there

    def _cluster_text(self, there: Any) -> str:
        wanted = self.cloud.config.compute
        text = f"cluster {wanted.name} ({wanted.size}, {_tier(wanted)}, 0 to "
        text += f"{wanted.max_instances} nodes, idle {wanted.idle_seconds} s)"
        if there is None:
            return text
        given = {
            "max_instances": (there.max_instances, wanted.max_instances),
            "idle_seconds": (int(there.idle_time_before_scale_down or 0), wanted.idle_seconds),
        }
        other = [f"{name} {has}" for name, (has, want) in given.items() if has != want]
        # Not ours to change; but nobody should think that it has been.
        return f"{text}; it keeps its own {' and '.join(other)}" if other else text

    def _create_cluster(self) -> None:
        from azure.ai.ml import load_compute

        wanted = self.cloud.config.compute
        cluster: Any = load_compute(COMPUTE_FILE)
        cluster.name, cluster.size, cluster.tier = wanted.name, wanted.size, _tier(wanted)
        cluster.max_instances = wanted.max_instances
        cluster.idle_time_before_scale_down = wanted.idle_seconds
        cluster.tags = self.cloud.tags()
        self.cloud.ml.compute.begin_create_or_update(cluster).result()

    # -- roles ---------------------------------------------------------------------------------------

    def _role(self, role: Role) -> Step:
        what = f"role {role.name} of {self.cloud.config.identity.name} on the {role.on}"
        return Step(what, lambda: self._has_role(role), lambda: self._grant(role), verb="assign")

    def _scope(self, role: Role) -> str | None:
        if role.on == "group":
            return self.cloud.group_path
        workspace = self._workspace()
        names = {"registry": "container_registry", "storage": "storage_account", "workspace": "id"}
        return getattr(workspace, names[role.on]) if workspace is not None else None

    def _has_role(self, role: Role) -> bool:
        scope, identity = self._scope(role), self._identity()
        if scope is None or identity is None:
            return False
        return has_role(self.cloud, role, scope, identity.principal_id)

    def _grant(self, role: Role) -> None:
        scope, identity = self._scope(role), self._identity()
        if scope is None:
            raise OpsError(
                f"the workspace {self.where.workspace} has no container registry yet",
                "Azure ML makes one with the first image that it builds; run this again after that.",
            )
        grant_role(self.cloud, role, scope, identity.principal_id)


def _is_up(cluster: Any) -> bool:
    return cluster is not None and cluster.provisioning_state != "Failed"


def _tier(wanted: Any) -> str:
    return "low_priority" if wanted.low_priority else "dedicated"


def _plain(name: str | None) -> str:
    """A region, size or tier as it compares: Azure writes `East US 2` and `eastus2`."""
    return re.sub(r"[^a-z0-9]", "", (name or "").lower())
