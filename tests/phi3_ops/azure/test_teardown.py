"""`phi3 down`: it deletes the resources that the tags name, and nothing else."""

from __future__ import annotations

import pytest

from azure_fixtures import WORKSPACE, plant
from planted import FUTURE, PAST, SIZE, cluster, connection, deployment, endpoint, tags

# Types of the resources that stay: the workspace and its parts.
LEFT = [
    "components",
    "registries",
    "resourceGroups",
    "storageAccounts",
    "vaults",
    "workspaces",
    "workspaces",
]


@pytest.fixture
def serving(provisioned):
    """The resources of `provision`, `deploy` and `connect`."""
    endpoint(provisioned)
    deployment(provisioned)
    connection(provisioned)
    return provisioned


def kinds(azure):
    """The last parts of the resources' types, sorted."""
    skipped = ("datastores", "Microsoft.Resources/deployments")
    types = [document["type"] for document in azure.resources.values()]
    return sorted(kind.rsplit("/", 1)[-1] for kind in types if not kind.endswith(skipped))


def with_name(azure, name):
    return [document for document in azure.resources.values() if document["name"] == name]


def deleted(azure):
    """The last parts of the types of what was deleted, in order."""
    return [request.path.rsplit("/", 2)[-2] for request in azure.writes()]


class TestDown:
    @pytest.mark.parametrize("group", [False, True])
    def test_without_resources_there_is_nothing_to_do(self, azure, phi3, group):
        if group:
            azure.create_group("rg")
        done = phi3("down", "--everything")
        assert (done.code, done.out, done.err) == (0, "down: nothing to change\n", "")

    def test_a_dry_run_lists_every_deletion(self, serving, phi3):
        done = phi3("down", "--everything", "--dry-run")
        assert (done.code, done.err) == (0, "")
        assert f"endpoint phi3-endpoint with its deployments (blue: {SIZE} x 1)" in done.out
        assert "role assignment AcrPull of phi3-identity on wsone" in done.out
        assert "would delete resource group rg" in done.out
        assert serving.writes() == []

    def test_it_asks_for_confirmation(self, serving, phi3):
        done = phi3("down")
        assert done.code == 1
        assert "Give --yes" in done.err
        assert serving.writes() == []

    def test_the_workspace_and_its_data_stay(self, serving, phi3):
        assert phi3("down", "--yes").code == 0
        assert kinds(serving) == LEFT
        assert deleted(serving) == [
            "onlineEndpoints",
            "connections",
            "computes",
            *["roleAssignments"] * 3,
            "userAssignedIdentities",
        ]
        assert phi3("down").out == "down: nothing to change\n"

    def test_provision_completes_what_stays(self, serving, phi3):
        phi3("down", "--yes")
        assert phi3("provision", "--yes").code == 0
        assert kinds(serving).count("roleAssignments") == 3

    def test_endpoint_only(self, serving, phi3):
        assert phi3("down", "--endpoint-only", "--yes").code == 0
        assert deleted(serving) == ["onlineEndpoints"]
        assert with_name(serving, "phi3") and with_name(serving, "gpu-a100")

    def test_everything_deletes_all_resources(self, serving, phi3):
        assert phi3("down", "--everything", "--yes").code == 0
        assert serving.resources == {}
        purge = [
            request.query for request in serving.writes() if request.path.endswith(f"/{WORKSPACE}")
        ]
        assert [query["forceToPurge"] for query in purge] == ["true"]

    def test_403_is_one_line_and_the_next_run_continues(self, serving, phi3):
        serving.fail("DELETE", "/computes/", 403, code="AuthorizationFailed", message="No.")
        done = phi3("down", "--yes")
        assert done.code == 1
        assert "delete cluster gpu-a100: AuthorizationFailed" in done.err
        assert done.err.count("\n") == 1
        assert phi3("down", "--yes").code == 0
        assert kinds(serving) == LEFT

    @pytest.mark.parametrize("count", [1, 4, 8])
    def test_an_interrupted_run_is_completed(self, serving, phi3, count):
        serving.fail("DELETE", "", 400, 1, after=count)
        assert phi3("down", "--everything", "--yes").code == 1
        assert phi3("down", "--everything", "--yes").code == 0
        assert serving.resources == {}

    @pytest.mark.parametrize(
        "options", [("--expired", "--everything"), ("--endpoint-only", "--expired")]
    )
    def test_one_scope_at_a_time(self, options):
        from phi3_ops.cli import main

        with pytest.raises(SystemExit) as end:
            main(["down", *options])
        assert end.value.code == 2


class TestOthers:
    """Untagged resources, and anything that contains them, are not deleted."""

    OTHERS = {
        "no tags": {},
        "of another workspace": tags(workspace="ws-two"),
        "other tags": {"a": "b"},
    }

    @pytest.mark.parametrize("tagged", OTHERS.values(), ids=OTHERS)
    def test_other_resources_stay(self, serving, phi3, tagged):
        endpoint(serving, "their-endpoint", tagged)
        connection(serving, "their-connection", tagged)
        cluster(serving, "their-cluster", tagged, nodes=1)
        done = phi3("down", "--everything", "--yes")
        assert done.code == 0
        for name in ("their-endpoint", "their-connection", "their-cluster", WORKSPACE):
            assert with_name(serving, name), name
        assert f"kept     workspace {WORKSPACE}: their-endpoint, their-cluster would be" in done.out
        assert not with_name(serving, "phi3-endpoint") and not with_name(serving, "gpu-a100")
        assert kinds(serving).count("storageAccounts") == 1

    def test_an_untagged_deployment_keeps_its_endpoint(self, serving, phi3):
        deployment(serving, "green", {})
        done = phi3("down", "--yes")
        assert "kept     endpoint phi3-endpoint: green would be deleted with it" in done.out
        assert with_name(serving, "green") and with_name(serving, "blue")

    def test_an_untagged_storage_account_keeps_the_group(self, serving, phi3):
        plant(serving, "/providers/Microsoft.Storage/storageAccounts/theirs", {"tags": {}})
        done = phi3("down", "--everything", "--yes")
        assert done.code == 0
        assert "kept     resource group rg: theirs would be deleted with it" in done.out
        assert kinds(serving) == ["resourceGroups", "storageAccounts"]

    def test_an_untagged_group_stays(self, serving, phi3):
        with_name(serving, "rg")[0]["tags"] = {}
        assert phi3("down", "--everything", "--yes").code == 0
        assert kinds(serving) == ["resourceGroups"]

    def test_an_untagged_workspace_stays(self, serving, phi3):
        with_name(serving, WORKSPACE)[0]["tags"] = {}
        assert phi3("down", "--everything", "--yes").code == 0
        assert with_name(serving, WORKSPACE) and not with_name(serving, "phi3-endpoint")

    def test_roles_with_other_names_stay(self, serving, phi3):
        path = next(path for path in serving.resources if "/roleassignments/" in path)
        document = serving.resources.pop(path)
        document["name"] = "99999999-9999-4999-8999-999999999999"
        document["id"] = f"{document['id'].rsplit('/', 1)[0]}/{document['name']}"
        serving.resources[document["id"].lower()] = document
        assert phi3("down", "--yes").code == 0
        assert with_name(serving, document["name"]) == [document]


class TestExpired:
    def test_only_the_expired_endpoint_is_deleted(self, provisioned, phi3):
        endpoint(provisioned, tagged=tags(PAST))
        deployment(provisioned, tagged=tags(PAST))
        connection(provisioned, tagged=tags(PAST))
        assert phi3("down", "--expired", "--yes").code == 0
        assert deleted(provisioned) == ["onlineEndpoints"]

    def test_a_newer_deployment_keeps_an_expired_endpoint(self, provisioned, phi3):
        endpoint(provisioned, tagged=tags(PAST))
        deployment(provisioned, tagged=tags(FUTURE))
        assert phi3("down", "--expired").out == "down: nothing to change\n"

    def test_without_a_date_nothing_expires(self, provisioned, phi3):
        endpoint(provisioned, tagged={**tags(), "expires": ""})
        deployment(provisioned, tagged=tags(PAST))
        assert phi3("down", "--expired").out == "down: nothing to change\n"

    @pytest.mark.parametrize(("nodes", "deleted"), [(0, True), (2, False)])
    def test_a_cluster_with_running_nodes_stays(self, provisioned, phi3, nodes, deleted):
        cluster(provisioned, "old", tags(PAST), nodes)
        done = phi3("down", "--expired", "--yes")
        assert done.code == 0
        assert bool(with_name(provisioned, "old")) is not deleted
        assert ("kept     cluster old: 2 nodes are running" in done.out) is not deleted
