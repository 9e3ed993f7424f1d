"""`phi3 doctor --azure`: what can be known before money is spent, with reads only."""

from __future__ import annotations

import json

import pytest

from phi3_ops.azure.provision import registry_name
from phi3_ops.doctor.rehearsal import ACTIONS, REHEARSAL
from phi3_ops.doctor.runner import FAIL, OK, WARN


@pytest.fixture
def rehearse(phi3):
    """Run the checks; return the exit code and the results by name."""

    def run():
        done = phi3("doctor", "--azure", "--json")
        results = json.loads(done.out)["checks"]
        return done.code, {result["name"]: result for result in results}

    return run


def test_a_check_comes_after_the_checks_that_it_needs():
    names = [check.name for check in REHEARSAL]
    for index, check in enumerate(REHEARSAL):
        assert set(check.needs) <= set(names[:index]) and check.fix
    assert len(set(names)) == len(names)


def test_all_is_well_and_nothing_is_written(provisioned, rehearse):
    code, results = rehearse()
    assert code == 0, results
    assert {result["status"] for result in results.values()} == {OK}
    assert results["model catalog"]["what"] == "Phi-4-mini-instruct:2"
    assert results["quota"]["what"].endswith("cores")
    assert provisioned.writes() == []


def test_an_empty_subscription(azure, rehearse):
    code, results = rehearse()
    assert code == 0, results
    assert results["resource group"]["fix"] == "phi3 provision --create-group"
    warned = {name for name, result in results.items() if result["status"] == WARN}
    assert warned == {"resource group", "your permissions", "policies"}
    assert results["registry name"]["what"].endswith("is free")


def test_what_would_stop_the_commands(provisioned, rehearse):
    provisioned.unregistered = {"microsoft.cdn"}
    provisioned.actions = ["Microsoft.MachineLearningServices/*", "*/read"]
    provisioned.denied = {"microsoft.storage/storageaccounts": "no-shared-keys"}
    provisioned.quota("standardDSv2Family", 4)
    provisioned.catalog = {}
    code, results = rehearse()
    assert code == 1
    failed = {name for name, result in results.items() if result["status"] == FAIL}
    assert failed == {"resource providers", "your permissions", "policies", "quota"}
    assert results["resource providers"]["what"] == "not registered: Microsoft.Cdn"
    assert results["resource providers"]["fix"] == "phi3 provision --register"
    permissions = results["your permissions"]["what"]
    assert "Microsoft.Authorization/roleAssignments/write" in permissions
    assert "onlineEndpoints/write" not in permissions
    forbidden = "the policy no-shared-keys forbids Microsoft.Storage/storageAccounts"
    assert results["policies"]["what"] == forbidden
    assert "flow: 4 cores of standardDSv2Family are missing" in results["quota"]["what"]
    assert results["model catalog"]["status"] == WARN


def test_a_taken_name_and_a_disabled_subscription(azure, rehearse):
    name = registry_name(azure.subscription, "rg", "ws-one")
    azure.taken = {name}
    _, results = rehearse()
    taken = f"the registry's name {name} is taken: The name is already in use."
    assert results["registry name"]["what"] == taken
    azure.fail("GET", azure.subscription, 200, None, body={"displayName": "s", "state": "Warned"})
    code, results = rehearse()
    assert (code, results["subscription"]["what"]) == (1, "the subscription s is Warned")


def test_the_report_is_printed(provisioned, phi3):
    done = phi3("doctor", "--azure")
    assert done.code == 0
    assert "resource providers: registered" in done.out
    assert f"{len(ACTIONS)} actions are allowed" in done.out


def test_a_policy_denial_is_named(azure, phi3):
    azure.denied = {"microsoft.containerregistry/registries": "No registries"}
    done = phi3("provision", "--create-group", "--yes")
    assert done.code == 1
    assert "RequestDisallowedByPolicy" in done.err and "(policy: No registries)" in done.err
    assert "Ask the owner of that policy" in done.err
