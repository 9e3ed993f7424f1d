"""Create the resource group, workspace, identity, cluster and roles for fine-tuning and serving.

Existing resources are used as they are: they are never changed and never tagged.
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
from .cloud import Cloud
from .config import ComputeConfig
from .faults import find_resource, named_errors
from .plan import Plan, Step
from .providers import refuse_unregistered, registration_step, unregistered_providers
from .quota import cluster_need, endpoint_need, refuse_retired, require_quota
from .roles import CONTRIBUTOR, DATA_ROLES, LEAST_ROLES, Role, grant_role, has_role

WORKSPACE_FILE = paths.AZURE / "workspace.yml"
COMPUTE_FILE = paths.AZURE / "compute.yml"
REGISTRY_API = "2023-07-01"
DEPLOYMENTS_API = "2020-06-01"
# The settings that Azure ML uses for a registry of its own: clusters sign in with the admin account.
# Contract: "Set up authentication between Azure Machine Learning and other services".
REGISTRY_SKU, REGISTRY_PROPERTIES = "Basic", {"adminUserEnabled": True}
# Type of a resource that an interrupted creation leaves behind -> the workspace's attribute for it.
REUSABLE_PARTS = {
    "microsoft.storage/storageaccounts": "storage_account",
    "microsoft.keyvault/vaults": "key_vault",
    "microsoft.insights/components": "application_insights",
}
ENDED = ("Succeeded", "Failed", "Canceled")
POLL_S = 5.0
CREATION_S = 1800.0


@dataclass(frozen=True)
class ProvisionOptions:
    """Further resources to create.

    Attributes:
        create_group: create the resource group if it does not exist.
        contributor: assign the tutorials' role Contributor on the resource group, beside the least roles.
        register: register resource providers that the subscription lacks.
    """

    create_group: bool = False
    contributor: bool = False
    register: bool = False


def registry_name(subscription: str, group: str, workspace: str) -> str:
    """Return the registry's name: the same for the same workspace, and unique to it.

    It consists of 5 to 50 letters and digits. Contract: "Naming rules and restrictions for Azure
    resources".
    """
    letters = re.sub(r"[^a-z0-9]", "", workspace.lower())[:24]
    path = f"{subscription}/{group}/{workspace}".lower()
    return f"{letters}{uuid.uuid5(uuid.NAMESPACE_URL, path).hex[:12]}"


class Provision:
    """Creates the resources that the configuration names.

    Args:
        cloud: clients and configuration.
        options: further resources to create.
    """

    def __init__(self, cloud: Cloud, options: ProvisionOptions) -> None:
        self.cloud = cloud
        self.options = options
        self.azure = cloud.config.azure

    def plan(self) -> Plan:
        """Return all steps, after checking for problems that would stop them halfway.

        Roles come last: many users may create all other resources but may not assign roles.

        Raises:
            OpsError: the resource group does not exist, a size is retired, quota is missing, a resource
                provider is not registered, or an existing resource differs from the configuration.
        """
        unregistered = unregistered_providers(self.cloud)
        if not self.options.register:
            refuse_unregistered(unregistered)
        with named_errors("provision"):
            workspace, cluster = self._workspace(), self._cluster()
            self._check(workspace, cluster)
        steps = [
            *[registration_step(self.cloud, name) for name in unregistered],
            Step(
                f"resource group {self.azure.resource_group}", self._has_group, self._create_group
            ),
            Step(
                f"workspace {self.azure.workspace} (with storage account, key vault and application "
                "insights)",
                self._has_workspace,
                self._create_workspace,
                usual="1 to 5 min",
            ),
            Step(
                f"identity {self.cloud.config.identity.name}",
                lambda: self._identity() is not None,
                self._create_identity,
            ),
            Step(
                self._cluster_text(cluster),
                lambda: _is_usable(self._cluster()),
                self._create_cluster,
                usual="1 to 3 min",
            ),
        ]
        registry = self._new_registry() if workspace is None else workspace.container_registry
        if registry:  # for an existing workspace without one, Azure ML creates a registry later
            name = registry.rsplit("/", 1)[-1]
            step = Step(f"container registry {name}", self._has_registry, self._create_registry)
            steps.insert(len(unregistered) + 1, step)
        roles = [*LEAST_ROLES, *(DATA_ROLES if self.azure.identity else [])]
        roles += [CONTRIBUTOR] if self.options.contributor else []
        return Plan("provision", steps + [self._role_step(role) for role in roles])

    def _check(self, workspace: Any, cluster: Any) -> None:
        group, region = self.azure.resource_group, self.azure.location
        if not self.options.create_group and not self._has_group():
            raise OpsError(
                f"the resource group {group} does not exist",
                "Give --create-group, or name another one.",
            )
        if workspace is not None and _normalized(workspace.location) != _normalized(region):
            raise OpsError(
                f"the workspace {workspace.name} is in {workspace.location}, not in {region}",
                f"Set azure.location to {workspace.location}.",
            )
        mode = getattr(workspace, "system_datastores_auth_mode", None)
        if self.azure.identity and workspace is not None and mode != "identity":
            raise OpsError(
                f"the workspace {workspace.name} reads its storage with account keys",
                "Set azure.identity to false, or run `az ml workspace update "
                "--system-datastores-auth-mode identity`.",
            )
        config = self.cloud.config
        refuse_retired([cluster_need(config), endpoint_need(config)])
        if cluster is None:
            require_quota(self.cloud, [cluster_need(config)])

    # -- resource group and registry -----------------------------------------------------------------

    def _has_group(self) -> bool:
        groups = self.cloud.resources.resource_groups
        return find_resource(lambda: groups.get(self.azure.resource_group)) is not None

    def _create_group(self) -> None:
        body = {"location": self.azure.location, "tags": self.cloud.tags()}
        self.cloud.resources.resource_groups.create_or_update(self.azure.resource_group, body)

    def _new_registry(self) -> str:
        azure = self.azure
        name = registry_name(azure.subscription_id, azure.resource_group, azure.workspace)
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
            "location": self.azure.location,
            "sku": {"name": REGISTRY_SKU},
            "properties": REGISTRY_PROPERTIES,
            "tags": self.cloud.tags(),
        }
        create = self.cloud.resources.resources.begin_create_or_update_by_id
        create(self._new_registry(), body, api_version=REGISTRY_API).result()

    # -- workspace -----------------------------------------------------------------------------------

    def _workspace(self) -> Any:
        return find_resource(lambda: self.cloud.ml.workspaces.get(self.azure.workspace))

    def _has_workspace(self) -> bool:
        return self._workspace() is not None and not self._creations()

    def _create_workspace(self) -> None:
        """Create the workspace, or wait for the creation that an interrupted run began."""
        from azure.ai.ml import load_workspace

        self._wait_for_creations()
        if self._workspace() is not None:
            return
        workspace = load_workspace(WORKSPACE_FILE)
        workspace.name = workspace.display_name = self.azure.workspace
        workspace.location = self.azure.location
        workspace.container_registry = self._new_registry()
        workspace.tags = self.cloud.tags()
        if self.azure.identity:
            workspace.system_datastores_auth_mode = "identity"
        for name, resource_id in self._reusable_parts().items():
            setattr(workspace, name, resource_id)
        self.cloud.ml.workspaces.begin_create(workspace).result()

    def _creations(self) -> list[str]:
        """Return the running template deployments of this workspace; the SDK numbers them at random."""
        path = f"{self.cloud.group_path}/providers/Microsoft.Resources/deployments"
        running = {"$filter": "provisioningState eq 'Running'"}
        list_all = self.cloud.rest_list
        deployments = find_resource(
            lambda: list(list_all(path, api=DEPLOYMENTS_API, query=running))
        )
        sdk_name = re.compile(rf"{re.escape(self.azure.workspace)}-\d+")
        return [
            deployment["name"]
            for deployment in deployments or []
            if sdk_name.fullmatch(deployment["name"])
            and deployment["properties"].get("provisioningState") not in ENDED
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
            what = (
                f"the template deployment {error.last[0]} has not ended after "
                f"{CREATION_S / 60:.0f} minutes"
            )
            raise OpsError(what, "Look at it in the portal.") from error

    def _reusable_parts(self) -> Mapping[str, str]:
        """Return the workspace's attributes for the parts that an interrupted creation left behind.

        Without them, the SDK would create further ones.
        """
        resources = self.cloud.resources.resources.list_by_resource_group(self.azure.resource_group)
        return {
            REUSABLE_PARTS[resource.type.lower()]: resource.id
            for resource in resources
            if self.cloud.owns(resource.tags) and resource.type.lower() in REUSABLE_PARTS
        }

    # -- identity ------------------------------------------------------------------------------------

    def _identity(self) -> Any:
        name = self.cloud.config.identity.name
        return find_resource(lambda: self.cloud.identities.get(self.azure.resource_group, name))

    def _create_identity(self) -> None:
        body = {"location": self.azure.location, "tags": self.cloud.tags()}
        group, name = self.azure.resource_group, self.cloud.config.identity.name
        self.cloud.identities.create_or_update(group, name, body)

    # -- cluster -------------------------------------------------------------------------------------

    def _cluster(self) -> Any:
        """Return the cluster of the configured name, or None.

        Raises:
            OpsError: the cluster has other machines than the configuration says.
        """
        config = self.cloud.config.compute
        cluster = find_resource(lambda: self.cloud.ml.compute.get(config.name))
        if cluster is None:
            return None
        machines = (getattr(cluster, "tier", None), getattr(cluster, "size", None))
        configured = (_tier(config), config.size)
        if [*map(_normalized, machines)] != [*map(_normalized, configured)]:
            raise OpsError(
                f"the cluster {config.name} exists with {' '.join(map(str, machines))}, not "
                f"{' '.join(configured)}",
                "Set another compute.name, or delete the cluster.",
            )
        return cluster

    def _cluster_text(self, cluster: Any) -> str:
        config = self.cloud.config.compute
        text = f"cluster {config.name} ({config.size}, {_tier(config)}, 0 to "
        text += f"{config.max_instances} nodes, idle {config.idle_seconds} s)"
        if cluster is None:
            return text
        settings = {
            "max_instances": (cluster.max_instances, config.max_instances),
            "idle_seconds": (int(cluster.idle_time_before_scale_down or 0), config.idle_seconds),
        }
        differing = [f"{name} {value}" for name, (value, wish) in settings.items() if value != wish]
        # An existing cluster is not changed, and the text says so.
        return f"{text}; its {' and '.join(differing)} stay" if differing else text

    def _create_cluster(self) -> None:
        from azure.ai.ml import load_compute

        config = self.cloud.config.compute
        cluster: Any = load_compute(COMPUTE_FILE)
        cluster.name, cluster.size, cluster.tier = config.name, config.size, _tier(config)
        cluster.max_instances = config.max_instances
        cluster.idle_time_before_scale_down = config.idle_seconds
        cluster.tags = self.cloud.tags()
        if self.azure.identity:
            cluster.identity = self.cloud.user_assigned_identity()
        self.cloud.ml.compute.begin_create_or_update(cluster).result()

    # -- roles ---------------------------------------------------------------------------------------

    def _role_step(self, role: Role) -> Step:
        what = f"role {role.name} of {self.cloud.config.identity.name} on the {role.scope_kind}"
        return Step(what, lambda: self._has_role(role), lambda: self._grant(role), verb="assign")

    def _scope(self, role: Role) -> str | None:
        if role.scope_kind == "group":
            return self.cloud.group_path
        workspace = self._workspace()
        names = {"registry": "container_registry", "storage": "storage_account", "workspace": "id"}
        return getattr(workspace, names[role.scope_kind]) if workspace is not None else None

    def _has_role(self, role: Role) -> bool:
        scope, identity = self._scope(role), self._identity()
        if scope is None or identity is None:
            return False
        return has_role(self.cloud, role, scope, identity.principal_id)

    def _grant(self, role: Role) -> None:
        scope, identity = self._scope(role), self._identity()
        if scope is None:
            raise OpsError(
                f"the workspace {self.azure.workspace} has no container registry yet",
                "Azure ML creates one with the first image that it builds; run this again after that.",
            )
        grant_role(self.cloud, role, scope, identity.principal_id)


def _is_usable(cluster: Any) -> bool:
    return cluster is not None and cluster.provisioning_state != "Failed"


def _tier(config: ComputeConfig) -> str:
    return "low_priority" if config.low_priority else "dedicated"


def _normalized(name: str | None) -> str:
    """Return a region, size or tier for comparison: Azure writes `East US 2` and `eastus2`."""
    return re.sub(r"[^a-z0-9]", "", (name or "").lower())
