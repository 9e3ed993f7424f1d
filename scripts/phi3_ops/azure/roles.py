"""The roles of the endpoint's identity: assignments whose names are hashes of their content."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import OpsError
from ..waiting import WaitTimeoutError, wait_until
from .cloud import Cloud
from .faults import find_resource, has_code
from .plan import Step

T = TypeVar("T")

ASSIGNMENT_EXISTS = "RoleAssignmentExists"


@dataclass(frozen=True)
class Role:
    """A built-in role and the kind of resource on which it is assigned.

    Attributes:
        name: Azure's name, by which the role is looked up.
        id: GUID, used if no role of that name is found.
        scope_kind: "registry", "storage", "workspace" or "group".
    """

    name: str
    id: str
    scope_kind: str


# Contract: "Access Azure resources from an online endpoint with a managed identity", least privilege.
LEAST_ROLES = (
    Role("AcrPull", "7f951dda-4ed3-4680-a7ca-43fe172d538d", "registry"),
    Role("Storage Blob Data Reader", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", "storage"),
    Role("AzureML Metrics Writer (preview)", "635dd51f-9968-44d3-b7fb-6d9a6bd613ae", "workspace"),
)
# With identities instead of account keys, the cluster reads and writes the data with this identity.
# Contract: "Identity-based data access" of Azure Machine Learning.
DATA_ROLES = (
    Role("Storage Blob Data Contributor", "ba92f5b4-2d11-453d-a403-e96b0029c9fe", "storage"),
    Role(
        "Storage File Data Privileged Contributor",
        "69566ab7-960f-475b-8e7c-b3118f30c6bd",
        "storage",
    ),
)
# The tutorials assign this role as well; nothing in this product needs it.
CONTRIBUTOR = Role("Contributor", "b24988ac-6180-42a0-ab88-20f7382dd24c", "group")
# The endpoint of a flow reads the connections and their keys from the workspace.
CONNECTION_SECRETS = Role(
    "Azure Machine Learning Workspace Connection Secrets Reader",
    "ea01e6af-a1c1-4350-9563-ad00f8c72ec5",
    "workspace",
)
ROLE_NAMES = {
    role.id: role.name for role in (*LEAST_ROLES, *DATA_ROLES, CONTRIBUTOR, CONNECTION_SECRETS)
}
# A new identity, and a new assignment, take minutes to reach every part of Azure. Contract: "Troubleshoot
# Azure RBAC": up to 10 minutes.
SPREAD_S = 600.0
SPREAD_POLL_S = 10.0
UNKNOWN_PRINCIPAL = "PrincipalNotFound"
NOT_AUTHORIZED = ("AuthorizationFailed", "Unauthorized", "AuthorizationPermissionMismatch")


def assignment_name(scope: str, role_id: str, principal: str) -> str:
    """Return the name of a role assignment, which is the same for the same three arguments.

    Args:
        scope: resource id on which the role is assigned.
        role_id: GUID of the role, or a resource id that ends with it.
        principal: object id of the identity that gets the role.
    """
    parts = (scope, role_id.rsplit("/", 1)[-1], principal)
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "|".join(parts).lower()))


def definition_id(cloud: Cloud, role: Role) -> str:
    """Return the resource id of a role's definition."""
    definitions = cloud.authorization.role_definitions
    matches = list(definitions.list(cloud.group_path, filter=f"roleName eq '{role.name}'"))
    if matches:
        return str(matches[0].id)
    subscription = f"/subscriptions/{cloud.config.azure.subscription_id}"
    return f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{role.id}"


def has_role(cloud: Cloud, role: Role, scope: str, principal: str) -> bool:
    """Return whether the principal has the role on exactly this scope, under any name."""
    role_id = definition_id(cloud, role).rsplit("/", 1)[-1].lower()
    return any(
        str(assignment.scope).lower() == scope.lower()
        and str(assignment.role_definition_id).rsplit("/", 1)[-1].lower() == role_id
        for assignment in role_assignments(cloud, scope, principal)
    )


def role_assignments(cloud: Cloud, scope: str, principal: str) -> list[Any]:
    """Return a principal's role assignments on a scope, above it and below it."""
    list_for_scope = cloud.authorization.role_assignments.list_for_scope
    by_principal = f"principalId eq '{principal}'"
    return find_resource(lambda: list(list_for_scope(scope, filter=by_principal))) or []


def grant_role(cloud: Cloud, role: Role, scope: str, principal: str) -> None:
    """Assign the role to the principal, unless an assignment of another name already does so.

    The directory may not know a new principal yet; this is tried again for `SPREAD_S`.
    """
    from azure.core.exceptions import HttpResponseError, ResourceExistsError
    from azure.mgmt.authorization.models import RoleAssignmentCreateParameters

    definition = definition_id(cloud, role)
    # Without the type, Azure looks up a new identity in a directory that may not contain it yet.
    parameters = RoleAssignmentCreateParameters(
        role_definition_id=definition, principal_id=principal, principal_type="ServicePrincipal"
    )
    name = assignment_name(scope, definition, principal)

    def assign() -> HttpResponseError | None:
        try:
            cloud.authorization.role_assignments.create(scope, name, parameters)
        except ResourceExistsError as error:
            if not has_code(error, ASSIGNMENT_EXISTS):
                raise
        except HttpResponseError as error:
            if not has_code(error, UNKNOWN_PRINCIPAL):
                raise
            return error
        return None

    try:
        wait_until(assign, lambda error: error is None, timeout_s=SPREAD_S, poll_s=SPREAD_POLL_S)
    except WaitTimeoutError as error:
        raise error.last from None
    cloud.role_granted_at = time.monotonic()


def configured_identity(cloud: Cloud) -> Any:
    """Return the configured user-assigned identity; raise OpsError if it does not exist."""
    group, name = cloud.config.azure.resource_group, cloud.config.identity.name
    identity = find_resource(lambda: cloud.identities.get(group, name))
    if identity is None:
        raise OpsError(f"the identity {name} does not exist", "Create it with `phi3 provision`.")
    return identity


def connection_reader_step(cloud: Cloud) -> Step:
    """Return the step that lets the configured identity read the connections of the workspace."""
    role, scope = CONNECTION_SECRETS, cloud.workspace_path

    def principal() -> str:
        return str(configured_identity(cloud).principal_id)

    return Step(
        f"role {role.name} of {cloud.config.identity.name} on the {role.scope_kind}",
        lambda: has_role(cloud, role, scope, principal()),
        lambda: grant_role(cloud, role, scope, principal()),
        verb="assign",
    )


def retry_while_roles_spread(cloud: Cloud, action: Callable[[], T]) -> T:
    """Return the result of `action`, which uses an identity.

    If this process has assigned a role in the last `SPREAD_S` seconds, a refusal may only mean that the
    assignment has not reached every part of Azure. Then `action` is called again.
    """
    from azure.core.exceptions import HttpResponseError

    while True:
        try:
            return action()
        except HttpResponseError as error:
            granted_at = cloud.role_granted_at
            recent = granted_at is not None and time.monotonic() - granted_at < SPREAD_S
            refused = error.status_code == 403 or has_code(error, *NOT_AUTHORIZED)
            if not (recent and refused):
                raise
        time.sleep(SPREAD_POLL_S)


def granted_roles(cloud: Cloud, principal: str) -> Iterator[Any]:
    """Yield the assignments in the resource group whose names show that `grant_role` created them."""
    for assignment in role_assignments(cloud, cloud.group_path, principal):
        scope, role_id = assignment.scope, assignment.role_definition_id
        if assignment.name == assignment_name(scope, role_id, principal):
            yield assignment
