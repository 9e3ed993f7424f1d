"""Workspaces, versions, clusters, quota, identities, roles, connections and resource groups."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from fake_azure import FakeAzure

SIZE = "Standard_NC24ads_A100_v4"
FAMILY = "standardNCADSA100v4Family"
GROUP, WORKSPACE = "rg", "ws"


def test_a_workspace_has_its_parts(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import Workspace

    workspace = client.workspaces.get(WORKSPACE)
    assert workspace.tags["owner"] == "me"
    assert workspace.storage_account.lower() in azure.resources
    assert client.datastores.get_default().name == "workspaceblobstore"
    again = Workspace(name=WORKSPACE, location=azure.region, tags={"more": "yes"})
    assert client.workspaces.begin_create(again).result().tags["more"] == "yes"


def test_versions_are_counted_and_immutable(client: Any, environment: Any) -> None:
    from azure.ai.ml.entities import Environment
    from azure.core.exceptions import HttpResponseError

    assert (environment.name, environment.version) == ("env", "1")
    assert client.environments.get("env", label="latest").version == "1"
    with pytest.raises(HttpResponseError, match="exists with another image"):
        client.environments.create_or_update(Environment(name="env", version="1", image="other:1"))


def test_compute(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import AmlCompute

    wanted = AmlCompute(
        name="gpu", size=SIZE, min_instances=0, max_instances=2, tier="low_priority"
    )
    client.compute.begin_create_or_update(wanted).result()
    sent = azure.writes()[-1]
    assert (sent.method, sent.path.rsplit("/", 1)[1]) == ("PUT", "gpu")
    assert sent.body["properties"]["properties"]["vmPriority"] == "LowPriority"
    cluster = client.compute.get("gpu")
    assert (cluster.provisioning_state, cluster.max_instances) == ("Succeeded", 2)
    client.compute.begin_delete("gpu").result()
    assert "gpu" not in [cluster.name for cluster in client.compute.list()]


def test_quota(client: Any, azure: FakeAzure) -> None:
    azure.quota(FAMILY, limit=48, used=24)
    usages = {usage.name["value"]: usage for usage in client.compute.list_usage()}
    assert (usages[FAMILY].limit, usages[FAMILY].current_value) == (48, 24)
    sizes = {size.name: size for size in client.compute.list_sizes()}
    assert (sizes[SIZE].family, sizes[SIZE].v_cp_us) == (FAMILY, 24)
    azure.quota(FAMILY, limit=1000)


def test_identity_and_roles(client: Any, azure: FakeAzure, credential: Any) -> None:
    from azure.core.exceptions import ResourceExistsError
    from azure.mgmt.authorization import AuthorizationManagementClient
    from azure.mgmt.msi import ManagedServiceIdentityClient

    identities = ManagedServiceIdentityClient(
        credential, azure.subscription
    ).user_assigned_identities
    identity = identities.create_or_update(GROUP, "uai", {"location": azure.region})
    authorization = AuthorizationManagementClient(credential, azure.subscription)
    scope = client.workspaces.get(WORKSPACE).storage_account
    query = "roleName eq 'Storage Blob Data Reader'"
    (role,) = authorization.role_definitions.list(scope, filter=query)
    wanted = {"role_definition_id": role.id, "principal_id": identity.principal_id}
    name = str(uuid.uuid4())
    for _ in range(2):  # the same again changes nothing
        authorization.role_assignments.create(scope, name, wanted)
    with pytest.raises(ResourceExistsError, match="RoleAssignmentExists"):
        authorization.role_assignments.create(scope, str(uuid.uuid4()), wanted)
    assert [item.name for item in authorization.role_assignments.list_for_scope(scope)] == [name]


def test_a_connection_does_not_show_its_secrets(
    client: Any, azure: FakeAzure, credential: Any
) -> None:
    scope = f"/subscriptions/{azure.subscription}/resourceGroups/{GROUP}/providers"
    path = f"{scope}/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}/connections/phi3"
    token = credential.get_token("https://management.azure.com/.default").token
    body = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "target": "-",
        "credentials": {"keys": {"key": "hidden"}},
        "metadata": {"endpoint": "https://x", "azureml.flow.connection_type": "Custom"},
    }
    calls = [("PUT", ""), ("GET", ""), ("POST", "/listsecrets"), ("DELETE", ""), ("GET", "")]
    answers = [
        requests.request(
            method,
            f"https://management.azure.com{path}{end}",
            params={"api-version": "2024-04-01-preview"},
            headers={"Authorization": f"Bearer {token}"},
            json={"properties": body} if method == "PUT" else None,
            timeout=10,
        )
        for method, end in calls
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404]
    assert ["hidden" in answer.text for answer in answers[:3]] == [False, False, True]


def test_a_group_lists_its_resources_with_their_tags(
    client: Any, azure: FakeAzure, credential: Any
) -> None:
    from azure.mgmt.resource.resources import ResourceManagementClient

    manager = ResourceManagementClient(credential, azure.subscription)
    resources = manager.resources.list_by_resource_group(GROUP)
    tags = {resource.type: resource.tags for resource in resources}
    assert tags["Microsoft.MachineLearningServices/workspaces"]["owner"] == "me"
    manager.resource_groups.create_or_update("other", {"location": azure.region})
    assert manager.resource_groups.get("other").location == azure.region
    manager.resource_groups.begin_delete("other").result()
    assert "other" not in [group.name for group in manager.resource_groups.list()]
