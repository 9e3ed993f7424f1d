"""What the endpoint's identity may do: role assignments whose names follow from what they say."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cloud import Cloud, find_resource

EXISTS = "RoleAssignmentExists"


@dataclass(frozen=True)
class Role:
    """A built-in role on one thing.

    Attributes:
        name: what Azure calls it; it is looked up by this.
        id: its GUID, where nothing of that name is found.
        on: "registry", "storage", "workspace" or "group".
    """

    name: str
    id: str
    on: str


# Contract: "Access Azure resources from an online endpoint with a managed identity", least privilege.
LEAST_ROLES = (
    Role("AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d", "registry"),
    Role("Storage Blob Data Reader", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", "storage"),
    Role("AzureML Metrics Writer (preview)", "635dd51f-9968-44d3-b7fb-6d9a6bd613ae", "workspace"),
)
# The tutorials give this as well; nothing here needs it.
CONTRIBUTOR = Role("Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c", "group")
# A flow's endpoint reads its connections, and their keys, in the workspace.
CONNECTION_SECRETS = Role(
    "Azure Machine Learning Workspace Connection Secrets Reader",
    "ea01e6af-a1c1-4350-9563-ad00f8c72ec5",
    "workspace",
)
ROLE_NAMES = {role.id: role.name for role in (*LEAST_ROLES, CONTRIBUTOR, CONNECTION_SECRETS)}


def assignment_name(scope: str, role_id: str, principal: str) -> str:
    """The name under which a principal has a role on a scope: the same for the same three.

    Args:
        scope: resource id of what the role is on.
        role_id: the role's GUID, or a resource id that ends with it.
        principal: object id of who has it.
    """
    parts = (scope, role_id.rsplit("/", 1)[-1], principal)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "|".join(parts).lower()))


def definition_id(cloud: Cloud, role: Role) -> str:
    """The resource id of a role's definition."""
    scope, definitions = cloud.group_path, cloud.authorization.role_definitions
    found = list(definitions.list(scope, filter=f"roleName eq '{role.name}'"))
    subscription = f"/subscriptions/{cloud.config.azure.subscription_id}"
    by_id = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role.id}"
    return str(found[0].id) if found else by_id


def has_role(cloud: Cloud, role: Role, scope: str, principal: str) -> bool:
    """Whether the principal has the role on just this scope, under whatever name."""
    wanted = definition_id(cloud, role).rsplit("/", 1)[-1].lower()
    return any(
        str(each.scope).lower() == scope.lower()
        and str(each.role_definition_id).rsplit("/", 1)[-1].lower() == wanted
        for each in role_assignments(cloud, scope, principal)
    )


def role_assignments(cloud: Cloud, scope: str, principal: str) -> list[Any]:
    """A principal's role assignments on a scope, above it and below it."""
    listed = cloud.authorization.role_assignments.list_for_scope
    return find_resource(lambda: list(listed(scope, filter=f"principalId eq '{principal}'"))) or []


def grant_role(cloud: Cloud, role: Role, scope: str, principal: str) -> None:
    """Give the principal the role; one that it has under another name will do."""
    from azure.core.exceptions import ResourceExistsError
    from azure.mgmt.authorization.models import RoleAssignmentCreateParameters

    definition = definition_id(cloud, role)
    # Without the type, Azure looks a new identity up in a directory that may not have it yet.
    parameters = RoleAssignmentCreateParameters(
        role_definition_id=definition, principal_id=principal, principal_type="ServicePrincipal"
    )
    name = assignment_name(scope, definition, principal)
    try:
        cloud.authorization.role_assignments.create(scope, name, parameters)
    except ResourceExistsError as error:
        if getattr(error.error, "code", None) != EXISTS:
            raise


def granted_roles(cloud: Cloud, principal: str) -> Iterator[Any]:
    """The assignments in the resource group that `grant` made: those with the name that it gives."""
    for each in role_assignments(cloud, cloud.group_path, principal):
        if each.name == assignment_name(each.scope, each.role_definition_id, principal):
            yield each
