"""The upload of a locked flow as a plan, and the list of local and uploaded versions."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from phi3_ops.flows.lock import lock_flows, read_lock
from phi3_ops.publish.project import HASH_TAG, upload_tags
from phi3_ops.publish.stage import require_locked
from phi3_ops.publish.upload import (
    NOT_LOCAL,
    NOT_UPLOADED,
    OTHER_CONTENT,
    UPLOADED,
    FlowRow,
    flow_rows,
    plan_upload,
    record_upload,
)


@pytest.fixture
def state(home):
    lock_flows(home)
    return require_locked("chat", home)


def run(plan, **options):
    """The output of a plan."""
    output = io.StringIO()
    plan.run(Console(file=output, width=200), **options)
    return output.getvalue()


def uploads(home):
    return read_lock(home)["chat"]["1.0.0"].uploads


# -- the plan ----------------------------------------------------------------------------------------


def test_a_flow_is_created_and_its_id_is_written(project, state, home):
    workspace = project()
    printed = run(plan_upload(workspace, state, home / "chat"))
    assert "created flow chat-v1.0.0 in ws-one (" in printed and "noted its id in" in printed
    assert uploads(home) == {"s/rg/ws-one": "id-1"}


def test_an_uploaded_flow_is_not_created_again(project, uploaded, state, home):
    workspace = project(uploaded("id-9", upload_tags(state)))
    printed = run(plan_upload(workspace, state, home / "chat"))
    assert workspace.stub.created == []
    assert "noted its id" in printed
    assert uploads(home) == {"s/rg/ws-one": "id-9"}
    again = plan_upload(workspace, require_locked("chat", home), home / "chat")
    assert "nothing to change" in run(again)


def test_a_dry_run_changes_nothing(project, state, home):
    workspace = project()
    printed = run(plan_upload(workspace, state, home / "chat"), dry_run=True)
    assert "would create flow chat-v1.0.0" in printed and "would note its id" in printed
    assert workspace.stub.created == [] and uploads(home) == {}


def test_another_workspace_adds_its_id(state, home):
    record_upload(home, state, "s/rg/one", "id-1")
    record_upload(home, state, "s/rg/two", "id-2")
    record_upload(home, state, "s/rg/one", "id-3")
    assert uploads(home) == {"s/rg/one": "id-3", "s/rg/two": "id-2"}


# -- the list ----------------------------------------------------------------------------------------


def test_a_version_that_is_not_uploaded(state):
    assert flow_rows([state], []) == [FlowRow("chat", "1.0.0", "locked", NOT_UPLOADED)]


@pytest.mark.parametrize(("changes", "status"), [({}, UPLOADED), ({HASH_TAG: "0"}, OTHER_CONTENT)])
def test_a_version_that_is_uploaded(state, uploaded, changes, status):
    flow = uploaded("id-1", upload_tags(state) | changes)
    assert flow_rows([state], [flow]) == [FlowRow("chat", "1.0.0", "locked", status, "id-1")]


def test_versions_that_are_only_uploaded_come_last_and_sorted(state, uploaded):
    tags = upload_tags(state)
    flows = [
        uploaded("id-3", tags | {"version": "1.1.0"}),
        uploaded("id-1", tags | {"name": "a"}),
        uploaded("id-2", tags),
    ]
    assert flow_rows([state], flows) == [
        FlowRow("chat", "1.0.0", "locked", UPLOADED, "id-2"),
        FlowRow("a", "1.0.0", NOT_LOCAL, UPLOADED, "id-1"),
        FlowRow("chat", "1.1.0", NOT_LOCAL, UPLOADED, "id-3"),
    ]
