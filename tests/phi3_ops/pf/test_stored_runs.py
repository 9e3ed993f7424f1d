"""The runs of Prompt flow's store as dataclasses: executed here, or added from elsewhere."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest

from flow_folders import write_echo_flow
from phi3_ops.errors import OpsError
from phi3_ops.pf import expectations
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.expectations import COMPLETED
from phi3_ops.pf.pace import ConcurrencyLimit
from phi3_ops.pf.run_types import CANCELED, NewRun
from phi3_ops.pf.stored_runs import (
    add_run,
    execute_run,
    find_stored_run,
    list_stored_runs,
    set_run_status,
)

MAPPING = {"text": "${data.text}"}


@pytest.fixture
def flow(tmp_path):
    return write_echo_flow(tmp_path / "echo")


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"text": each}) + "\n" for each in ("a", "fail", "b")))
    return file


def new_run(flow, data, name, **fields):
    values = {"title": "a title", "base": None, "connections": None, "column_mapping": MAPPING}
    return NewRun(name=f"{name}-{os.getpid()}", flow=flow, data=data, **{**values, **fields})


def test_a_run_is_executed_and_found(flow, data):
    ended = []
    new = new_run(flow, data, "executed", properties={"mine": "x"})
    run = execute_run(new, ConcurrencyLimit(2), ended.append)
    assert sorted(ended) == [False, True, True]
    assert find_stored_run(new.name) == run
    assert (run.name, run.title, run.status) == (new.name, "a title", COMPLETED)
    assert (run.flow, run.data, run.base) == (flow, data, None)
    assert run.column_mapping == MAPPING and run.properties["mine"] == "x"
    assert isinstance(run.created_on, datetime)
    assert (run.folder / "flow_outputs" / "output.jsonl").is_file()
    assert run.name in [each.name for each in list_stored_runs()]


def test_a_base_run_is_kept_by_its_name(flow, data):
    base = execute_run(new_run(flow, data, "base"), ConcurrencyLimit(2), lambda completed: None)
    mapping = {"text": "${run.outputs.text}"}
    new = new_run(flow, data, "bound", base=base.name, column_mapping=mapping)
    execute_run(new, ConcurrencyLimit(2), lambda completed: None)
    assert find_stored_run(new.name).base == base.name


def test_lines_that_completed_are_copied_when_a_run_is_resumed(flow, data):
    first = execute_run(new_run(flow, data, "first"), ConcurrencyLimit(2), lambda completed: None)
    ended = []
    new = new_run(flow, data, "resumed", resume_from=first.name)
    execute_run(new, ConcurrencyLimit(2), ended.append)
    assert ended == [True, True, False]  # the copied lines first


def test_an_untested_prompt_flow_runs_on_its_own_engine(flow, data, monkeypatch):
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    monkeypatch.setenv("PF_WORKER_COUNT", "7")
    ended = []
    run = execute_run(new_run(flow, data, "stock"), ConcurrencyLimit(2), ended.append)
    assert run.status == COMPLETED and ended == []
    assert os.environ["PF_WORKER_COUNT"] == "7"


def test_a_run_that_fails_as_a_whole_raises(flow, data):
    (flow / "flow.dag.yaml").write_text("nodes: 3")
    with pytest.raises(OpsError, match=f"the batch broken-{os.getpid()} failed: "):
        execute_run(new_run(flow, data, "broken"), ConcurrencyLimit(2), lambda completed: None)
    assert "PF_WORKER_COUNT" not in os.environ


def test_a_run_that_does_not_exist_is_none():
    assert find_stored_run("nowhere") is None


def test_the_status_can_be_changed(flow, data):
    new = new_run(flow, data, "status")
    execute_run(new, ConcurrencyLimit(2), lambda completed: None)
    set_run_status(new.name, CANCELED)
    assert find_stored_run(new.name).status == CANCELED


def add(name, flow, data, folder, **properties):
    add_run(
        name,
        folder,
        title="added",
        data=data,
        flow=flow,
        column_mapping=MAPPING,
        properties=properties,
    )


def test_a_run_from_elsewhere_is_added_once(flow, data, tmp_path):
    source = execute_run(new_run(flow, data, "source"), ConcurrencyLimit(2), lambda completed: None)
    name = f"added-{os.getpid()}"
    add(name, flow, data, source.folder, mine="x")
    add(name, flow, data, tmp_path / "other", mine="y")
    run = find_stored_run(name)
    assert (run.title, run.status, run.folder, run.data) == (
        "added",
        COMPLETED,
        source.folder,
        data,
    )
    assert run.column_mapping == MAPPING and run.properties["mine"] == "x"
    assert list(pf_client().get_details(name)["outputs.text"]) == ["a", "(Failed)", "b"]


def test_a_store_that_cannot_be_written_is_named(flow, data, tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("disk full")

    monkeypatch.setattr(type(pf_client().runs), "create_or_update", broken)
    with pytest.raises(OpsError, match="cannot add the run x to Prompt flow's store: disk full"):
        add("x", flow, data, tmp_path)
    assert find_stored_run("x") is None
