"""`phi3 provision` with the real clients: its requests, existing resources, interrupted runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from azure_fixtures import WORKSPACE
from phi3_ops.azure import provision, roles
from phi3_ops.azure.provision import registry_name
from phi3_ops.azure.roles import DATA_ROLES, LEAST_ROLES
from processes import BIN

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "azure"
GO = ("provision", "--create-group", "--yes")
ROLES = ("role-acr-pull", "role-blob-reader", "role-metrics-writer")
# The writes of a first run, in order.
WRITES = ("group", "registry", "workspace", "identity", "cluster", *ROLES)
FAMILY = "standardNCADSA100v4Family"


def kinds(azure):
    """Return the types in the group, without datastores and template deployments."""
    types = [document["type"].rsplit("/", 1)[-1] for document in azure.resources.values()]
    return sorted(kind for kind in types if kind not in ("datastores", "deployments"))


# There are two `workspaces`, because log analytics uses that type name too.
EVERYTHING = [
    *("components", "computes", "registries", "resourceGroups"),
    *("roleAssignments", "roleAssignments", "roleAssignments"),
    *("storageAccounts", "userAssignedIdentities", "vaults", "workspaces", "workspaces"),
]


def only(azure, kind):
    documents = list(azure.resources.values())
    (document,) = [item for item in documents if item["type"].endswith(f"/{kind}")]
    return document


class TestNames:
    def test_a_registrys_name_is_valid_and_unique(self):
        paths = [("s", "g", "my_Work-space"), ("s", "g2", "my_Work-space"), ("s", "g", "w" * 33)]
        names = {registry_name(*path) for path in paths}
        assert len(names) == 3
        assert all(re.fullmatch(r"[a-z0-9]{5,50}", name) for name in names)
        assert registry_name("S", "G", "MY_work-space") in names


class TestDryRun:
    def test_a_group_must_exist(self, azure, phi3):
        done = phi3("provision", "--dry-run")
        assert (done.code, done.out) == (1, "")
        assert "the resource group rg does not exist. Give --create-group" in done.err

    def test_it_prints_every_step_and_sends_nothing(self, azure, phi3):
        done = phi3("provision", "--dry-run", "--create-group")
        assert (done.code, done.err) == (0, "")
        assert done.out.count("  would ") == len(WRITES)
        assert azure.writes() == []

    def test_without_yes_nothing_happens(self, azure, phi3):
        done = phi3("provision", "--create-group")
        assert done.code == 1
        assert "Give --yes" in done.err
        assert azure.writes() == []


class TestApply:
    def test_a_second_run_changes_nothing(self, azure, phi3):
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING
        count = len(azure.writes())
        assert count == len(WRITES)
        again = phi3("provision")
        assert (again.code, again.err) == (0, "")
        assert "provision: nothing to change\n" in again.out
        assert "container registry wsone" in again.out
        assert len(azure.writes()) == count

    def test_everything_carries_the_tags(self, provisioned):
        untagged = ("roleAssignments", "deployments", "datastores")
        for document in provisioned.resources.values():
            kind = document["type"].rsplit("/", 1)[-1]
            if "/providers/" not in document["id"] or kind in untagged:
                continue
            tags = document["tags"]
            assert tags["created-by"] == "phi3-promptflow", document["id"]
            assert (tags["owner"], tags["workspace"]) == ("me", WORKSPACE)
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", tags["expires"])

    def test_the_requests(self, azure, phi3):
        phi3(*GO)
        phi3("provision", "--contributor", "--yes")
        names = [*WRITES, "role-contributor"]
        sent = dict(zip(names, map(_masked, azure.writes()), strict=True))
        if os.environ.get("PHI3_WRITE_GOLDEN"):
            GOLDEN.mkdir(exist_ok=True)
            for name, request in sent.items():
                (GOLDEN / f"provision-{name}.json").write_text(json.dumps(request, indent=2) + "\n")
        for name, request in sent.items():
            assert request == json.loads((GOLDEN / f"provision-{name}.json").read_text()), name

    def test_the_cluster_is_the_configurations(self, azure, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text(
            "compute: {name: mine, size: Standard_NC4as_T4_v3, max_instances: 3, idle_seconds: 300, "
            "low_priority: true}"
        )
        phi3(*GO)
        cluster = only(azure, "computes")
        settings = cluster["properties"]["properties"]
        assert (cluster["name"], settings["vmSize"]) == ("mine", "Standard_NC4as_T4_v3")
        assert settings["vmPriority"] == "LowPriority"
        scale = settings["scaleSettings"]
        assert (scale["minNodeCount"], scale["maxNodeCount"]) == (0, 3)
        assert scale["nodeIdleTimeBeforeScaleDown"] == "PT5M"

    def test_a_role_whose_name_azure_does_not_know_goes_by_its_id(self, azure, phi3, monkeypatch):
        from fake_azure import identity

        monkeypatch.setattr(identity, "ROLES", {"Other": "00000000-0000-0000-0000-000000000000"})
        assert phi3(*GO).code == 0
        role_ids = {
            document["properties"]["roleDefinitionId"].rsplit("/", 1)[-1]
            for document in azure.resources.values()
            if document["type"].endswith("roleAssignments")
        }
        assert role_ids == {role.id for role in LEAST_ROLES}


class TestIdentity:
    """A tenant that forbids account keys: `azure: {identity: true}`."""

    @pytest.fixture
    def keyless(self, azure, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("azure: {identity: true}")
        assert phi3(*GO).code == 0
        return azure

    def test_workspace_cluster_and_roles(self, keyless, phi3):
        (workspace,) = [
            document
            for document in keyless.resources.values()
            if document["type"] == "Microsoft.MachineLearningServices/workspaces"
        ]
        assert workspace["properties"]["systemDatastoresAuthMode"] == "identity"
        (identity,) = only(keyless, "computes")["identity"]["userAssignedIdentities"]
        assert identity.endswith("/userAssignedIdentities/phi3-identity")
        assert kinds(keyless).count("roleAssignments") == len(LEAST_ROLES) + len(DATA_ROLES)
        assert "nothing to change" in phi3("provision").out

    def test_a_job_uploads_without_keys(self, keyless, phi3, tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
        keyless.fail_job()
        files = ("--train-file", tmp_path / "rows.jsonl", "--eval-file", tmp_path / "rows.jsonl")
        done = phi3("finetune", *files)
        assert done.code == 0, done.err
        assert not any(request.path.endswith("/listSecrets") for request in keyless.requests)

    def test_a_workspace_with_keys_is_an_error(self, provisioned, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("azure: {identity: true}")
        done = phi3("provision", "--yes")
        assert "ws-one reads its storage with account keys. Set azure.identity to" in done.err
        assert provisioned.writes() == []

    def test_an_identity_that_the_directory_does_not_know_yet(self, azure, phi3, monkeypatch):
        monkeypatch.setattr(roles, "SPREAD_POLL_S", 0.0)
        azure.fail("PUT", "/roleAssignments/", 400, 2, code="PrincipalNotFound")
        assert phi3(*GO).code == 0
        azure.fail("PUT", "/roleAssignments/", 400, None, code="PrincipalNotFound")
        monkeypatch.setattr(roles, "SPREAD_S", 0.0)
        done = phi3("provision", "--contributor", "--yes")
        assert "assign role Contributor" in done.err and "PrincipalNotFound" in done.err
        assert "does not know the new identity yet; try again in a minute" in done.err


class TestExistingResources:
    @pytest.fixture
    def done(self, provisioned):
        """All resources exist, without the product's tags."""
        for document in provisioned.resources.values():
            document["tags"] = {"theirs": "yes"}
        return provisioned

    def test_they_are_never_changed(self, done, phi3):
        assert phi3("provision").code == 0
        assert done.writes() == []
        assert all(document["tags"] == {"theirs": "yes"} for document in done.resources.values())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("size: Standard_NC40ads_H100_v5", "exists with dedicated Standard_NC24ads_A100_v4"),
            ("low_priority: true", "not low_priority Standard_NC24ads_A100_v4"),
        ],
    )
    def test_another_machine_is_an_error(self, done, phi3, tmp_path, settings, message):
        (tmp_path / "phi3.yaml").write_text(f"compute: {{{settings}}}")
        result = phi3("provision", "--yes")
        assert result.code == 1
        assert "the cluster gpu-a100" in result.err and message in result.err
        assert done.writes() == []

    def test_other_counts_stay_and_are_printed(self, done, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("compute: {max_instances: 4, idle_seconds: 600}")
        result = phi3("provision")
        assert result.code == 0
        assert "its max_instances 1 and idle_seconds 120 stay" in result.out
        assert done.writes() == []

    def test_another_region_is_an_error(self, done, phi3, monkeypatch):
        monkeypatch.setenv("AZURE_LOCATION", "westeurope")
        result = phi3("provision", "--yes")
        assert result.code == 1
        assert "is in eastus2, not in westeurope" in result.err

    def test_a_region_may_be_written_as_in_the_portal(self, done, phi3, monkeypatch):
        monkeypatch.setenv("AZURE_LOCATION", "East US 2")
        assert phi3("provision").code == 0

    def test_an_assignment_of_another_name_exists(self, done, phi3):
        _rename_assignments(done)
        assert "nothing to change" in phi3("provision").out

    def test_an_assignment_that_the_list_does_not_show_yet(self, done, phi3, monkeypatch):
        _rename_assignments(done)
        monkeypatch.setattr(roles, "has_role", lambda *_: False)
        assert phi3("provision", "--yes").code == 0  # 409 RoleAssignmentExists

    def test_a_workspace_without_registry_says_when_it_gets_one(self, done, phi3):
        workspace = next(
            document
            for document in done.resources.values()
            if document["type"] == "Microsoft.MachineLearningServices/workspaces"
        )
        workspace["properties"]["containerRegistry"] = None
        result = phi3("provision", "--yes")
        assert result.code == 1
        assert "has no container registry yet" in result.err
        assert done.writes() == []


class TestRefusals:
    def test_missing_quota_stops_before_anything_is_created(self, azure, phi3):
        azure.quota(FAMILY, 24, 12)
        done = phi3(*GO)
        assert done.code == 1
        assert f"cluster: 12 cores of {FAMILY} are missing in eastus2" in done.err
        assert azure.writes() == []

    def test_an_existing_cluster_needs_no_quota(self, provisioned, phi3):
        provisioned.quota(FAMILY, 24, 24)
        assert phi3("provision").code == 0

    def test_a_retired_size(self, azure, phi3, tmp_path):
        (tmp_path / "phi3.yaml").write_text("endpoint: {size: Standard_NC6s_v3}")
        done = phi3(*GO)
        assert done.code == 1
        assert "Use Standard_NC24ads_A100_v4" in done.err
        assert azure.writes() == []

    def test_not_signed_in(self, azure, phi3):
        azure.fail(
            "POST",
            "oauth2/v2.0/token",
            401,
            None,
            body={"error": "invalid_client", "error_description": "AADSTS7000215: wrong secret"},
        )
        done = phi3(*GO)
        assert done.code == 1
        assert "not signed in" in done.err and "az login" in done.err
        assert done.err.count("\n") == 1

    @pytest.mark.parametrize(
        ("path", "step"),
        [
            ("/registries/", "create container registry"),
            ("/roleAssignments/", "assign role AcrPull"),
            ("/computes/", "create cluster"),
        ],
    )
    def test_403_is_one_line_and_the_next_run_continues(self, azure, phi3, path, step):
        azure.fail("PUT", path, 403, code="AuthorizationFailed", message="You may not.")
        done = phi3(*GO)
        assert done.code == 1
        assert f"phi3 provision: {step}" in done.err and "AuthorizationFailed" in done.err
        assert done.err.count("\n") == 1
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING

    def test_a_registrys_name_that_is_taken(self, azure, phi3):
        azure.fail("PUT", "/registries/", 409, code="AlreadyInUse", message="The name is taken.")
        done = phi3(*GO)
        assert done.code == 1
        assert "AlreadyInUse" in done.err

    @pytest.mark.parametrize("path", ["/deployments/", "/computes/"])
    def test_a_failed_operation_is_one_line_and_the_next_run_continues(self, azure, phi3, path):
        azure.fail_operation(path, "QuotaExceeded", "There is no more.")
        done = phi3(*GO)
        assert done.code == 1, done.out
        assert "There is no more." in done.err
        assert done.err.count("\n") == 1, done.err
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_transient_error_is_retried(self, azure, phi3, status):
        azure.fail("GET", "/workspaces/", status, 2, headers={"Retry-After": "0"})
        azure.fail("PUT", "/userAssignedIdentities/", status, 2, headers={"Retry-After": "0"})
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING

    def test_a_lost_poll_is_polled_again(self, azure, phi3):
        azure.fail("GET", "operationsStatus/", 0)
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING


@pytest.fixture(autouse=True)
def short_polls(monkeypatch):
    monkeypatch.setattr(provision, "POLL_S", 0.05)


class TestInterrupted:
    @pytest.mark.parametrize("count", range(1, len(WRITES) + 1), ids=WRITES)
    def test_after_any_write_the_next_run_completes(self, azure, phi3, kill_after, count):
        kill_after(count)
        assert phi3(*GO).code == 1
        assert len(azure.writes()) == count
        kill_after(0)
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING  # nothing is created twice
        assert len(azure.writes()) == len(WRITES)

    def test_a_process_killed_while_it_creates_the_workspace(
        self, azure, phi3, kill_after, tmp_path
    ):
        running = threading.Event()
        azure.on_write(lambda request: "/deployments/" in request.path and running.set())
        process = subprocess.Popen([BIN / "phi3", *GO], cwd=tmp_path, stdout=subprocess.DEVNULL)
        try:
            assert running.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        azure.on_write(None)
        assert phi3(*GO).code == 0
        assert kinds(azure) == EVERYTHING

    def test_the_parts_of_a_failed_creation_are_used(self, provisioned, phi3):
        """A template that fails halfway leaves its first parts, with random names."""
        azure, workspaces = provisioned, "/microsoft.machinelearningservices/workspaces/"
        for key in [key for key in azure.resources if workspaces in key]:
            del azure.resources[key]
        parts = ("storageAccounts", "vaults", "components", "registries")
        before = [only(azure, part)["id"] for part in parts]
        assert phi3(*GO).code == 0
        assert [only(azure, part)["id"] for part in parts] == before


def _rename_assignments(azure):
    for key in [key for key in azure.resources if "/roleassignments/" in key]:
        document = azure.resources.pop(key)
        name = str(uuid.uuid4())
        document["name"], document["id"] = name, document["id"].rsplit("/", 1)[0] + f"/{name}"
        azure.resources[document["id"].lower()] = document


def _masked(request):
    """Return a request with dates and random names replaced."""
    body = json.loads(json.dumps(request.body))
    path = request.path
    if "template" in body.get("properties", {}):  # the SDK's template, 900 lines
        parameters = body["properties"]["parameters"]
        body = {
            name: value["value"] for name, value in parameters.items() if value.get("value") != ""
        }
    text = json.dumps({"method": request.method, "path": path, "body": body})
    text = re.sub(rf"/deployments/{WORKSPACE}-\d+", f"/deployments/{WORKSPACE}-<number>", text)
    text = re.sub(r"wsone(storage|keyvault|logalyti|insights)[0-9a-f]+", r"wsone\1<random>", text)
    text = re.sub(r"roleAssignments/[0-9a-f-]{36}", "roleAssignments/<uuid5>", text)
    return json.loads(re.sub(r"\d{4}-\d\d-\d\d(?=\")", "<date>", text))
