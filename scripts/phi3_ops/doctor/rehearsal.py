"""The checks of `phi3 doctor --azure`: what can be known before money is spent, with reads only."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .azure_checks import environments
from .checks import (
    AZURE_PACKAGES,
    AZURE_S,
    COPY_EXAMPLE,
    INSTALL,
    LOCAL_PACKAGES,
    SIGN_IN_S,
    configuration,
    packages,
    sign_in,
    sizes,
)
from .runner import FAIL, OK, WARN, Check, Finding

if TYPE_CHECKING:
    from .checks import CheckContext

SUBSCRIPTIONS_API = "2022-12-01"
PERMISSIONS_API = "2022-04-01"
REGISTRY_API = "2023-07-01"
POLICY_API = "2023-03-01"
UNKNOWN_WITHOUT_GROUP = "not known before the resource group exists"
RUN_AGAIN = "Run this again after the resource group was created."
# Actions that the commands need on the resource group, and the command that fails without them.
ACTIONS = {
    "Microsoft.MachineLearningServices/workspaces/write": "phi3 provision",
    "Microsoft.Storage/storageAccounts/write": "phi3 provision",
    "Microsoft.KeyVault/vaults/write": "phi3 provision",
    "Microsoft.ContainerRegistry/registries/write": "phi3 provision",
    "Microsoft.ManagedIdentity/userAssignedIdentities/write": "phi3 provision",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action": "phi3 deploy",
    "Microsoft.Authorization/roleAssignments/write": "phi3 provision",
    "Microsoft.MachineLearningServices/workspaces/computes/write": "phi3 provision",
    "Microsoft.MachineLearningServices/workspaces/jobs/write": "phi3 finetune",
    "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write": "phi3 deploy",
    "Microsoft.MachineLearningServices/workspaces/connections/write": "phi3 connect --azure",
}


def subscription(context: CheckContext) -> Finding:
    """Whether the subscription exists, is enabled, and can be read."""
    from ..azure import named_errors

    path = f"/subscriptions/{context.config.azure.subscription_id}"
    with named_errors("reading the subscription"):
        answer = context.cloud.rest("GET", path, api=SUBSCRIPTIONS_API)
    state = str(answer.get("state"))
    name = str(answer.get("displayName"))
    if state != "Enabled":
        return Finding(FAIL, f"the subscription {name} is {state}")
    return Finding(OK, name)


def providers(context: CheckContext) -> Finding:
    """Whether the subscription has registered the resource providers that the commands need."""
    from ..azure import unregistered_providers

    if missing := unregistered_providers(context.cloud):
        return Finding(FAIL, f"not registered: {', '.join(missing)}")
    return Finding(OK, "registered")


def resource_group(context: CheckContext) -> Finding:
    """Whether the resource group exists, and its region."""
    from ..azure import find_resource, named_errors

    name = context.config.azure.resource_group
    groups = context.cloud.resources.resource_groups
    with named_errors("reading the resource group"):
        group = find_resource(lambda: groups.get(name))
    if group is None:
        return Finding(WARN, f"{name} does not exist", "phi3 provision --create-group")
    return Finding(OK, f"{name}, {group.location}")


def permissions(context: CheckContext) -> Finding:
    """Whether the signed-in user may do in the resource group what the commands do there."""
    from ..azure import find_resource, named_errors

    path = f"{context.cloud.group_path}/providers/Microsoft.Authorization/permissions"
    with named_errors("reading your permissions"):
        listed = find_resource(lambda: list(context.cloud.rest_list(path, api=PERMISSIONS_API)))
    if listed is None:
        return Finding(WARN, UNKNOWN_WITHOUT_GROUP, RUN_AGAIN)
    if missing := [action for action in ACTIONS if not _allows(listed, action)]:
        commands = ", ".join(dict.fromkeys(f"`{ACTIONS[action]}`" for action in missing))
        return Finding(FAIL, f"{commands} needs {', '.join(missing)}")
    return Finding(OK, f"{len(ACTIONS)} actions are allowed")


def _allows(listed: list[dict[str, Any]], action: str) -> bool:
    """Return whether one of the user's permissions allows an action.

    Contract: "Permissions - List For Resource Group".
    """

    def matches(patterns: list[str]) -> bool:
        return any(fnmatch.fnmatch(action.lower(), pattern.lower()) for pattern in patterns)

    return any(
        matches(permission.get("actions") or []) and not matches(permission.get("notActions") or [])
        for permission in listed
    )


def quota(context: CheckContext) -> Finding:
    """Whether the quota of the region is enough for the cluster, the endpoint and a flow's endpoint."""
    from ..azure import (
        ASK_FOR_QUOTA,
        cluster_need,
        endpoint_need,
        flow_need,
        quota_lines,
        quota_shortage,
    )

    needs = [cluster_need(context.config), endpoint_need(context.config), flow_need()]
    lines = quota_lines(context.cloud, needs)
    if shortage := quota_shortage(lines, context.config.azure.location):
        return Finding(FAIL, shortage, ASK_FOR_QUOTA)
    unknown = [line.quota for line in lines if line.limit is None]
    if unknown:
        return Finding(WARN, f"Azure does not list {', '.join(unknown)}", ASK_FOR_QUOTA)
    cores = [f"{line.purpose}: {line.needed} of {line.quota}" for line in lines]
    return Finding(OK, f"{', '.join(cores)} cores")


def registry_name_free(context: CheckContext) -> Finding:
    """Whether the name of the container registry is free, or belongs to this workspace."""
    from ..azure import find_resource, named_errors, registry_name

    azure, cloud = context.config.azure, context.cloud
    name = registry_name(azure.subscription_id, azure.resource_group, azure.workspace)
    provider = "/providers/Microsoft.ContainerRegistry"
    own = f"{cloud.group_path}{provider}/registries/{name}"
    path = f"/subscriptions/{azure.subscription_id}{provider}/checkNameAvailability"
    body = {"name": name, "type": "Microsoft.ContainerRegistry/registries"}
    with named_errors("checking the registry's name"):
        if find_resource(lambda: cloud.rest("GET", own, api=REGISTRY_API)) is not None:
            return Finding(OK, f"{name} exists")
        answer = cloud.rest("POST", path, api=REGISTRY_API, body=body)
    if not answer.get("nameAvailable"):
        return Finding(FAIL, f"the registry's name {name} is taken: {answer.get('message')}")
    return Finding(OK, f"{name} is free")


def policies(context: CheckContext) -> Finding:
    """Whether a policy forbids the workspace, its storage account or its registry."""
    from ..azure import find_resource, named_errors

    provider = f"{context.cloud.group_path}/providers/Microsoft.PolicyInsights"
    path = f"{provider}/checkPolicyRestrictions"
    denials = []
    with named_errors("checking the policies"):
        for document in _planned_resources(context):
            body = {"resourceDetails": {"resourceContent": document, "apiVersion": POLICY_API}}
            send = partial(context.cloud.rest, "POST", path, api=POLICY_API, body=body)
            answer = find_resource(send)
            if answer is None:
                return Finding(WARN, UNKNOWN_WITHOUT_GROUP, RUN_AGAIN)
            denials += [f"{name} forbids {document['type']}" for name in _denials(answer)]
    return Finding(FAIL, "; ".join(denials)) if denials else Finding(OK, "nothing is forbidden")


def _planned_resources(context: CheckContext) -> Iterator[dict[str, Any]]:
    """Yield the parts of the new resources on which policies usually decide."""
    common = {"location": context.config.azure.location, "tags": context.cloud.tags()}
    yield {"type": "Microsoft.MachineLearningServices/workspaces", **common}
    shared_keys = {"allowSharedKeyAccess": not context.config.azure.identity}
    yield {"type": "Microsoft.Storage/storageAccounts", "properties": shared_keys, **common}
    admin = {"adminUserEnabled": True}
    yield {"type": "Microsoft.ContainerRegistry/registries", "properties": admin, **common}


def _denials(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the policies that deny. Contract: "Policy Restrictions - Check At Resource Group Scope"."""
    evaluations = (answer.get("contentEvaluationResult") or {}).get("policyEvaluations") or []
    for evaluation in evaluations:
        effect = (evaluation.get("effectDetails") or {}).get("policyEffect", "")
        if evaluation.get("evaluationResult") == "NonCompliant" and effect.lower() == "deny":
            assignment = str((evaluation.get("policyInfo") or {}).get("policyAssignmentId"))
            yield f"the policy {assignment.rsplit('/', 1)[-1]}"


def catalog_model(context: CheckContext) -> Finding:
    """Whether the model catalog has the model of `phi3 finetune --catalog`."""
    from ..azure import find_resource, named_errors
    from ..training import DEFAULT_MODEL

    get = context.cloud.catalog.models.get
    with named_errors("reading the model catalog"):
        model = find_resource(lambda: get(DEFAULT_MODEL, label="latest"))
    if model is None:
        fix = "Leave out --catalog: your own job trains the weights of the hub."
        return Finding(WARN, f"the catalog has no {DEFAULT_MODEL}", fix)
    return Finding(OK, f"{DEFAULT_MODEL}:{model.version}")


AZURE = ("azure",)
ASK_OWNER = "Ask the subscription's owner."
SIGNED_IN = ("configuration", "az login")
ON_SUBSCRIPTION = (*SIGNED_IN, "subscription")

REHEARSAL = (
    Check(LOCAL_PACKAGES, AZURE, partial(packages, extra="local"), INSTALL),
    Check(AZURE_PACKAGES, AZURE, partial(packages, extra="azure"), INSTALL),
    Check("configuration", AZURE, configuration, COPY_EXAMPLE, (LOCAL_PACKAGES,)),
    Check("machine sizes", AZURE, sizes, "Set another size in phi3.yaml.", ("configuration",)),
    Check(
        "environments on Azure",
        AZURE,
        environments,
        "Pin another torch in conda.yaml, or name another image.",
        (LOCAL_PACKAGES,),
    ),
    Check("az login", AZURE, sign_in, "az login", (AZURE_PACKAGES,), SIGN_IN_S),
    Check("subscription", AZURE, subscription, ASK_OWNER, SIGNED_IN, AZURE_S),
    Check(
        "resource providers",
        AZURE,
        providers,
        "phi3 provision --register",
        ON_SUBSCRIPTION,
        AZURE_S,
    ),
    Check("resource group", AZURE, resource_group, ASK_OWNER, ON_SUBSCRIPTION, AZURE_S),
    Check("your permissions", AZURE, permissions, ASK_OWNER, ON_SUBSCRIPTION, AZURE_S),
    Check("policies", AZURE, policies, ASK_OWNER, ON_SUBSCRIPTION, AZURE_S),
    Check("quota", AZURE, quota, "phi3 quota", (*ON_SUBSCRIPTION, "machine sizes"), AZURE_S),
    Check(
        "registry name",
        AZURE,
        registry_name_free,
        "Set another azure.workspace in phi3.yaml.",
        ON_SUBSCRIPTION,
        AZURE_S,
    ),
    Check("model catalog", AZURE, catalog_model, ASK_OWNER, ON_SUBSCRIPTION, AZURE_S),
)
