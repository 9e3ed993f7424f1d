"""Versions of flows: what is locked, and what never changes afterwards."""

from __future__ import annotations

import json

import pytest

from flow_folders import write_flow
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.lock import (
    LOCK_CHANGED,
    LOCK_FILE,
    LOCKED,
    NOT_LOCKED,
    flow_states,
    lock_flows,
    read_lock,
    refuse_changed_flows,
    save_lock,
    semantic_version,
)


@pytest.fixture
def home(tmp_path):
    """A folder with two flows, both locked."""
    write_flow(tmp_path / "flows" / "one", code="x = 1\n")
    write_flow(tmp_path / "flows" / "two", "0.1.0-rc.1")
    lock_flows(tmp_path / "flows")
    return tmp_path / "flows"


# -- the shipped ones ------------------------------------------------------------------------------


def test_the_shipped_flows_are_as_they_were_locked():
    """If a flow's content has changed, raise its version and run `phi3 flow lock`."""
    assert {state.name: state.status for state in flow_states()} == dict.fromkeys(
        (
            *("agent", "chat", "eval", "eval_structured", "extract"),
            *("judge", "judge_llm", "judge_pairwise", "qa"),
        ),
        LOCKED,
    )


def test_the_shipped_lock_is_written_as_it_would_be_again(tmp_path):
    save_lock(read_lock(), tmp_path)
    assert (tmp_path / LOCK_FILE).read_bytes() == (paths.FLOWS / LOCK_FILE).read_bytes()


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0.0", "0.1.0-rc.1", "10.20.30+build.5", "1.0.0-0a"])
def test_semantic_versions(tmp_path, version):
    assert semantic_version(FlowDefinition.read(write_flow(tmp_path / "f", version))) == version


@pytest.mark.parametrize(
    "version", ["1.0", "1", "v1.0.0", "01.0.0", "1.0.0-01", "1.0.0-", '"1.0.0\\n"']
)
def test_a_version_that_is_not_semantic_is_refused(tmp_path, version):
    with pytest.raises(OpsError, match=r"flow\.dag\.yaml: `tags\.version` is .*such as 1\.0\.0"):
        semantic_version(FlowDefinition.read(write_flow(tmp_path / "f", version)))


def test_a_flow_without_a_version_is_refused(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "flow.dag.yaml").write_text("inputs: {}\nnodes: []\n")
    with pytest.raises(OpsError, match=r"`tags\.version` is None"):
        flow_states(tmp_path)


# -- the lock --------------------------------------------------------------------------------------


def test_going_back_to_a_locked_version_needs_its_content(home):
    write_flow(home / "one", "1.1.0", code="x = 2\n")
    lock_flows(home)
    write_flow(home / "one", "1.0.0", code="x = 2\n")
    with pytest.raises(OpsError, match=r"one 1\.0\.0"):
        lock_flows(home)
    write_flow(home / "one", "1.0.0", code="x = 1\n")
    assert [state.status for state in lock_flows(home)] == [LOCKED] * 2


def test_the_ids_of_uploads_are_kept(home):
    file = home / LOCK_FILE
    lock = json.loads(file.read_text())
    lock["one"]["1.0.0"]["uploads"] = {"ws-one": "id-1"}
    file.write_text(json.dumps(lock))
    write_flow(home / "three")
    lock_flows(home)
    assert read_lock(home)["one"]["1.0.0"].uploads == {"ws-one": "id-1"}


def test_the_tools_version_is_that_of_the_package(home):
    from phi3_tools import __version__

    assert read_lock(home)["one"]["1.0.0"].tools == __version__


def test_a_state_lists_the_other_locked_versions(home):
    write_flow(home / "one", "1.1.0", code="x = 2\n")
    lock_flows(home)
    one, two = flow_states(home)
    assert (one.label, one.other_versions) == ("one 1.1.0", ("1.0.0",))
    assert (two.label, two.other_versions) == ("two 0.1.0-rc.1", ())


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("<<<<<<< HEAD\n{}", "Invalid JSON"),
        ("[]", "Input should be"),
        ('{"one": 3}', "one: Input should be"),
        ('{"one": {"1.0.0": {"sha256": "x", "tools": "1"}}}', "one > 1.0.0 > sha256: "),
        (
            json.dumps(
                {"one": {"1.0.0": {"sha256": "0" * 64, "tools": "1", "uploads": {"w": "../x"}}}}
            ),
            "one > 1.0.0 > uploads > w: String should match",
        ),
    ],
)
def test_a_broken_lock_is_an_error_that_names_the_place(home, text, place):
    (home / LOCK_FILE).write_text(text)
    with pytest.raises(OpsError, match="flows.lock.json is not a valid lock file: ") as caught:
        read_lock(home)
    assert place in caught.value.what
    assert caught.value.fix == "Restore it from version control: its entries never change."


def test_a_folder_without_a_lock_has_an_empty_one(tmp_path):
    assert read_lock(tmp_path) == {}


def test_every_changed_flow_is_named(home):
    write_flow(home / "one", code="x = 2\n")
    write_flow(home / "two", "0.1.0-rc.1", code="x = 2\n")
    states = flow_states(home)
    assert {state.status for state in states} == {LOCK_CHANGED}
    with pytest.raises(OpsError, match="locked with other content: one 1.0.0, two 0.1.0-rc.1"):
        refuse_changed_flows(states)


def test_a_flow_that_is_not_locked_has_not_changed(home):
    write_flow(home / "three")
    (state,) = [state for state in flow_states(home) if state.name == "three"]
    assert (state.status, state.entry) == (NOT_LOCKED, None)
    refuse_changed_flows([state])
