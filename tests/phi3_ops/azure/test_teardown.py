"""`phi3 down` and `phi3 status`: what the tags say, and nothing else."""

from __future__ import annotations

import json

import pytest

from azure_fixtures import WORKSPACE, plant

SIZE = "Standard_NC24ads_A100_v4"
PAST, FUTURE = "2020-01-01", "2999-01-01"
LEFT = [  # when all but the data is gone
    "components",
    "registries",
    "resourceGroups",
    "storageAccounts",
    "vaults",
    "workspaces",
    "workspaces",
]


def tags(expires=FUTURE, **other):
    ours = {"created-by": "phi3-promptflow", "workspace": WORKSPACE, "owner": "me"}
    return {**ours, "expires": expires, **other}


def endpoint(azure, name="phi3-endpoint", marks=None, traffic=None):
    marks = tags() if marks is None else marks
    properties = {"authMode": "Key", "traffic": traffic or {"blue": 100}}
    return plant(azure, f"onlineEndpoints/{name}", {"tags": marks, "properties": properties})


def deployment(azure, name="blue", marks=None, of="phi3-endpoint", count=1):
    marks = tags() if marks is None else marks
    body = {"tags": marks, "sku": {"name": "Default", "capacity": count}}
    body["properties"] = {"endpointComputeType": "Managed", "instanceType": SIZE}
    return plant(azure, f"onlineEndpoints/{of}/deployments/{name}", body)


def connection(azure, name="phi3", marks=None):
    properties = {"category": "CustomKeys", "authType": "CustomKeys", "target": "x"}
    properties["metadata"] = tags() if marks is None else marks
    return plant(azure, f"connections/{name}", {"properties": properties})


def cluster(azure, name, marks, nodes=0):
    inner = {"vmSize": SIZE, "currentNodeCount": nodes, "scaleSettings": {"maxNodeCount": 1}}
    body = {"tags": marks, "properties": {"computeType": "AmlCompute", "properties": inner}}
    return plant(azure, f"computes/{name}", body)


@pytest.fixture
def serving(provisioned):
    """All that `provision`, `deploy` and `connect` make."""
    endpoint(provisioned)
    deployment(provisioned)
    connection(provisioned)
    return provisioned


def there(azure):
    skipped = ("datastores", "Microsoft.Resources/deployments")
    found = [each["type"] for each in azure.resources.values()]
    return sorted(kind.rsplit("/", 1)[-1] for kind in found if not kind.endswith(skipped))


def named(azure, name):
    return [each for each in azure.resources.values() if each["name"] == name]


def deleted(azure):
    """What was deleted, in order: its type's last part."""
    return [request.path.rsplit("/", 2)[-2] for request in azure.writes()]


class TestDown:
    @pytest.mark.parametrize("group", [False, True])
    def test_nothing_is_nothing_to_do(self, azure, phi3, group):
        if group:
            azure.create_group("rg")
        done = phi3("down", "--everything")
        assert (done.code, done.out, done.err) == (0, "down: nothing to change\n", "")

    def test_a_dry_run_lists_it_all(self, serving, phi3):
        done = phi3("down", "--everything", "--dry-run")
        assert (done.code, done.err) == (0, "")
        assert f"endpoint phi3-endpoint with its deployments (blue: {SIZE} x 1)" in done.out
        assert "role assignment AcrPull of phi3-identity on wsone" in done.out
        assert "would delete resource group rg" in done.out
        assert serving.writes() == []

    def test_it_asks(self, serving, phi3):
        done = phi3("down")
        assert done.code == 1
        assert "Give --yes" in done.err
        assert serving.writes() == []

    def test_the_workspace_and_its_data_stay(self, serving, phi3):
        assert phi3("down", "--yes").code == 0
        assert there(serving) == LEFT
        assert deleted(serving) == [
            "onlineEndpoints",
            "connections",
            "computes",
            *["roleAssignments"] * 3,
            "userAssignedIdentities",
        ]
        assert phi3("down").out == "down: nothing to change\n"

    def test_what_stays_can_be_built_on(self, serving, phi3):
        phi3("down", "--yes")
        assert phi3("provision", "--yes").code == 0
        assert there(serving).count("roleAssignments") == 3

    def test_endpoint_only(self, serving, phi3):
        assert phi3("down", "--endpoint-only", "--yes").code == 0
        assert deleted(serving) == ["onlineEndpoints"]
        assert named(serving, "phi3") and named(serving, "gpu-a100")

    def test_everything_leaves_nothing(self, serving, phi3):
        assert phi3("down", "--everything", "--yes").code == 0
        assert serving.resources == {}
        purge = [each.query for each in serving.writes() if each.path.endswith(f"/{WORKSPACE}")]
        assert [query["forceToPurge"] for query in purge] == ["true"]

    def test_403_is_one_line_and_the_next_run_goes_on(self, serving, phi3):
        serving.fail("DELETE", "/computes/", 403, code="AuthorizationFailed", message="No.")
        done = phi3("down", "--yes")
        assert done.code == 1
        assert "delete cluster gpu-a100: AuthorizationFailed" in done.err
        assert done.err.count("\n") == 1
        assert phi3("down", "--yes").code == 0
        assert there(serving) == LEFT

    @pytest.mark.parametrize("count", [1, 4, 8])
    def test_an_interrupted_run_is_completed(self, serving, phi3, count):
        serving.fail("DELETE", "", 400, 1, after=count)
        assert phi3("down", "--everything", "--yes").code == 1
        assert phi3("down", "--everything", "--yes").code == 0
        assert serving.resources == {}

    @pytest.mark.parametrize(
        "both", [("--expired", "--everything"), ("--endpoint-only", "--expired")]
    )
    def test_one_scope_at_a_time(self, both):
        from phi3_ops.cli import main

        with pytest.raises(SystemExit) as end:
            main(["down", *both])
        assert end.value.code == 2


class TestOthers:
    """What lacks the tags is not touched, nor what holds it."""

    OTHERS = {"none": {}, "of another workspace": tags(workspace="ws-two"), "theirs": {"a": "b"}}

    @pytest.mark.parametrize("marks", OTHERS.values(), ids=OTHERS)
    def test_their_things_stay(self, serving, phi3, marks):
        endpoint(serving, "their-endpoint", marks)
        connection(serving, "their-connection", marks)
        cluster(serving, "their-cluster", marks, nodes=1)
        done = phi3("down", "--everything", "--yes")
        assert done.code == 0
        for name in ("their-endpoint", "their-connection", "their-cluster", WORKSPACE):
            assert named(serving, name), name
        assert f"kept     workspace {WORKSPACE}: their-endpoint, their-cluster would be" in done.out
        assert not named(serving, "phi3-endpoint") and not named(serving, "gpu-a100")
        assert there(serving).count("storageAccounts") == 1

    def test_their_deployment_keeps_the_endpoint(self, serving, phi3):
        deployment(serving, "green", {})
        done = phi3("down", "--yes")
        assert "kept     endpoint phi3-endpoint: green would be deleted with it" in done.out
        assert named(serving, "green") and named(serving, "blue")

    def test_their_storage_keeps_the_group(self, serving, phi3):
        plant(serving, "/providers/Microsoft.Storage/storageAccounts/theirs", {"tags": {}})
        done = phi3("down", "--everything", "--yes")
        assert done.code == 0
        assert "kept     resource group rg: theirs would be deleted with it" in done.out
        assert there(serving) == ["resourceGroups", "storageAccounts"]

    def test_a_group_that_was_there_before_stays(self, serving, phi3):
        named(serving, "rg")[0]["tags"] = {}
        assert phi3("down", "--everything", "--yes").code == 0
        assert there(serving) == ["resourceGroups"]

    def test_a_workspace_that_was_there_before_stays(self, serving, phi3):
        named(serving, WORKSPACE)[0]["tags"] = {}
        assert phi3("down", "--everything", "--yes").code == 0
        assert named(serving, WORKSPACE) and not named(serving, "phi3-endpoint")

    def test_roles_that_somebody_gave_stay(self, serving, phi3):
        given = [each for each in serving.resources if "/roleassignments/" in each][0]
        document = serving.resources.pop(given)
        document["name"] = "99999999-9999-4999-8999-999999999999"
        document["id"] = f"{document['id'].rsplit('/', 1)[0]}/{document['name']}"
        serving.resources[document["id"].lower()] = document
        assert phi3("down", "--yes").code == 0
        assert [each["name"] for each in serving.resources.values()].count(document["name"]) == 1


class TestExpired:
    def test_an_expired_endpoint_goes_and_nothing_else(self, provisioned, phi3):
        endpoint(provisioned, marks=tags(PAST))
        deployment(provisioned, marks=tags(PAST))
        connection(provisioned, marks=tags(PAST))
        assert phi3("down", "--expired", "--yes").code == 0
        assert deleted(provisioned) == ["onlineEndpoints"]

    def test_a_fresh_deployment_keeps_an_old_endpoint(self, provisioned, phi3):
        endpoint(provisioned, marks=tags(PAST))
        deployment(provisioned, marks=tags(FUTURE))
        assert phi3("down", "--expired").out == "down: nothing to change\n"

    def test_without_a_date_nothing_expires(self, provisioned, phi3):
        endpoint(provisioned, marks={**tags(), "expires": ""})
        deployment(provisioned, marks=tags(PAST))
        assert phi3("down", "--expired").out == "down: nothing to change\n"

    @pytest.mark.parametrize(("nodes", "goes"), [(0, True), (2, False)])
    def test_a_cluster_at_work_stays(self, provisioned, phi3, nodes, goes):
        cluster(provisioned, "old", tags(PAST), nodes)
        done = phi3("down", "--expired", "--yes")
        assert done.code == 0
        assert bool(named(provisioned, "old")) is not goes
        assert ("kept     cluster old: 2 nodes are running" in done.out) is not goes


class TestStatus:
    def test_nothing(self, azure, phi3):
        done = phi3("status")
        assert (done.code, done.out) == (0, "paid for by the hour: nothing\n")

    def test_the_table(self, serving, phi3):
        endpoint(serving, "their-endpoint", {})
        cluster(serving, "busy", tags(PAST), nodes=2)
        done = phi3("status")
        assert (done.code, done.err) == (0, "")
        lines = {" ".join(line.split()) for line in done.out.splitlines()}
        assert any(
            line.startswith(f"deployment blue {SIZE} x 1 Succeeded 100 % 2") for line in lines
        )
        assert any(line.startswith(f"cluster gpu-a100 {SIZE} x 0 Succeeded 2") for line in lines)
        assert f"paid for by the hour: {SIZE} x 3" in lines
        assert "their-endpoint" not in done.out
        assert serving.writes() == []

    def test_json(self, serving, phi3):
        found = json.loads(phi3("status", "--json").out)
        assert found["hourly"] == {SIZE: 1}
        kinds = {row["kind"]: row for row in found["items"]}
        assert set(kinds) == {"endpoint", "deployment", "cluster"}
        assert kinds["endpoint"]["expires"] == FUTURE
        assert (kinds["deployment"]["traffic"], kinds["deployment"]["owner"]) == (100, "me")
