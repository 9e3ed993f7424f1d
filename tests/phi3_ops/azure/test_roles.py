"""Role assignments: their names, and recognizing those that exist."""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace

import pytest

from offline_cloud import SUBSCRIPTION, missing, offline_cloud
from phi3_ops.azure import roles
from phi3_ops.azure.roles import (
    CONTRIBUTOR,
    DATA_ROLES,
    LEAST_ROLES,
    ROLE_NAMES,
    assignment_name,
    definition_id,
    grant_role,
    granted_roles,
    has_role,
    retry_while_roles_spread,
    role_assignments,
)

ROLE = LEAST_ROLES[0]
SCOPE = "/subscriptions/s/resourceGroups/rg/providers/x/registries/r"


def test_an_assignments_name_is_a_hash_of_its_content():
    name = assignment_name("/Sub/X", "/a/b/ROLE", "P")
    assert name == assignment_name("/sub/x", "role", "p")
    assert name == str(uuid.uuid5(uuid.NAMESPACE_URL, "/sub/x|role|p"))
    others = {("/sub/y", "role", "p"), ("/sub/x", "role2", "p"), ("/sub/x", "role", "q")}
    assert name not in {assignment_name(*other) for other in others}


def test_every_role_has_an_id_and_a_name():
    assert ROLE_NAMES[CONTRIBUTOR.id] == "Contributor"
    assert len(ROLE_NAMES) == len(LEAST_ROLES) + len(DATA_ROLES) + 2


def assignment(scope=SCOPE, role=ROLE.id, principal="p", name=None):
    return SimpleNamespace(
        scope=scope,
        role_definition_id=f"/x/roleDefinitions/{role}",
        name=name or assignment_name(scope, role, principal),
    )


def cloud_with(*assignments, definitions=(), create=None):
    def list_for_scope(scope, filter):
        assert filter == "principalId eq 'p'"
        return assignments

    def list_definitions(scope, filter):
        assert filter == f"roleName eq '{ROLE.name}'"
        return definitions

    authorization = SimpleNamespace(
        role_assignments=SimpleNamespace(list_for_scope=list_for_scope, create=create),
        role_definitions=SimpleNamespace(list=list_definitions),
    )
    return offline_cloud({"authorization": authorization})


def test_a_definition_is_looked_up_by_name():
    assert definition_id(cloud_with(definitions=[SimpleNamespace(id="/found")]), ROLE) == "/found"


def test_a_definition_without_a_match_goes_by_its_id():
    expected = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"
    assert definition_id(cloud_with(), ROLE) == f"{expected}/{ROLE.id}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"scope": SCOPE.upper()}, True),
        ({"role": ROLE.id.upper()}, True),
        ({"name": "another"}, True),
        ({"scope": "/subscriptions/s"}, False),
        ({"role": CONTRIBUTOR.id}, False),
    ],
)
def test_a_role_counts_on_exactly_its_scope(changes, expected):
    assert has_role(cloud_with(assignment(**changes)), ROLE, SCOPE, "p") is expected


def test_a_scope_that_does_not_exist_has_no_assignments():
    operations = SimpleNamespace(role_assignments=SimpleNamespace(list_for_scope=missing))
    assert role_assignments(offline_cloud({"authorization": operations}), SCOPE, "p") == []


def test_only_assignments_with_our_names_are_ours():
    ours, theirs = assignment(), assignment(name="99999999-9999-4999-8999-999999999999")
    assert list(granted_roles(cloud_with(ours, theirs), "p")) == [ours]


class TestGrant:
    def test_name_and_content(self):
        calls = []
        cloud = cloud_with(create=lambda *words: calls.append(words))
        grant_role(cloud, ROLE, SCOPE, "p")
        ((scope, name, parameters),) = calls
        assert (scope, name) == (SCOPE, assignment_name(SCOPE, ROLE.id, "p"))
        assert parameters.principal_id == "p"
        assert parameters.principal_type == "ServicePrincipal"
        assert parameters.role_definition_id == definition_id(cloud, ROLE)

    @pytest.mark.parametrize(("code", "raises"), [("RoleAssignmentExists", False), ("No", True)])
    def test_an_assignment_of_another_name_suffices(self, code, raises):
        from azure.core.exceptions import ResourceExistsError

        def create(*_):
            error = ResourceExistsError("exists")
            error.error = SimpleNamespace(code=code)
            raise error

        cloud = cloud_with(create=create)
        if raises:
            with pytest.raises(ResourceExistsError):
                grant_role(cloud, ROLE, SCOPE, "p")
        else:
            grant_role(cloud, ROLE, SCOPE, "p")


class TestSpreadingRoles:
    """A role that was just assigned has not reached every part of Azure."""

    def refuse(self, times, status=403):
        from azure.core.exceptions import HttpResponseError

        answers = iter([status] * times)

        def action():
            if status := next(answers, None):
                error = HttpResponseError("no")
                error.status_code = status
                raise error
            return "done"

        return action

    def test_a_refusal_after_an_assignment_is_tried_again(self, monkeypatch):
        monkeypatch.setattr(roles, "SPREAD_POLL_S", 0.0)
        cloud = offline_cloud()
        cloud.role_granted_at = time.monotonic()
        assert retry_while_roles_spread(cloud, self.refuse(2)) == "done"

    @pytest.mark.parametrize(
        ("granted", "limit_s", "status"), [(False, 600, 403), (True, 0, 403), (True, 600, 400)]
    )
    def test_other_refusals_pass(self, monkeypatch, granted, limit_s, status):
        from azure.core.exceptions import HttpResponseError

        monkeypatch.setattr(roles, "SPREAD_S", limit_s)
        cloud = offline_cloud()
        cloud.role_granted_at = time.monotonic() if granted else None
        with pytest.raises(HttpResponseError):
            retry_while_roles_spread(cloud, self.refuse(1, status))
