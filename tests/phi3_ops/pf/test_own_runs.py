"""The package's own store of runs, for machines without Prompt flow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf import store_database
from phi3_ops.pf.own_runs import (
    begin_own_run,
    delete_own_run,
    find_own_run,
    list_own_runs,
    own_runs_folder,
    update_own_run,
)
from phi3_ops.pf.run_types import CANCELED, NewRun
from phi3_ops.pf.stored_runs import add_run, find_stored_run, set_run_status

MAPPING = {"text": "${data.text}"}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store_database, "installed_version", lambda package: "")


def new_run(tmp_path: Path, name: str, **fields) -> NewRun:
    values = {"title": "a title", "flow": tmp_path / "flow", "data": tmp_path / "d.jsonl"}
    values |= {"base": None, "column_mapping": MAPPING, "connections": None}
    return NewRun(name=name, **{**values, **fields})


def test_begun_updated_listed_and_deleted(tmp_path):
    folder = begin_own_run(new_run(tmp_path, "first", properties={"mine": "x"}, base="b"))
    run = find_own_run("first")
    assert (run.name, run.title, run.status, run.base) == ("first", "a title", "Running", "b")
    assert (run.folder, run.flow) == (folder, tmp_path / "flow")
    assert run.column_mapping == MAPPING and run.properties["mine"] == "x"
    begin_own_run(new_run(tmp_path, "second"))
    assert [each.name for each in list_own_runs()] == ["second", "first"]
    update_own_run("first", "Completed", {"duration": 1.5})
    assert find_own_run("first").properties["system_metrics"] == {"duration": 1.5}
    set_run_status("first", CANCELED)
    assert find_stored_run("first").status == CANCELED
    assert delete_own_run("first") and not delete_own_run("first")
    assert not folder.exists()


def test_a_name_is_used_once(tmp_path):
    begin_own_run(new_run(tmp_path, "first"))
    with pytest.raises(OpsError, match="the run first exists already"):
        begin_own_run(new_run(tmp_path, "first"))


@pytest.mark.parametrize("name", ["../home", "", ".", "a/b"])
def test_a_name_is_never_a_path(tmp_path, name):
    begin_own_run(new_run(tmp_path, "first"))
    assert find_own_run(name) is None and not delete_own_run(name)
    assert find_own_run("first")


def test_a_damaged_record_is_named_and_not_listed(tmp_path):
    begin_own_run(new_run(tmp_path, "first"))
    file = own_runs_folder() / "first" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    damages = ["{", "[" * 200_000, json.dumps({**record, "data": 5, "status": "Completed"})]
    damages += [json.dumps({**record, name: None}) for name in ("name", "created_on", "properties")]
    for text in damages:
        file.write_text(text)
        with pytest.raises(OpsError, match="run.json is damaged"):
            find_own_run("first")
        assert list_own_runs() == []


def test_a_run_of_a_cluster_is_added_with_its_folder(tmp_path):
    folder = tmp_path / "outputs"
    folder.mkdir()
    fields = {"title": "t", "data": tmp_path / "d.jsonl", "flow": tmp_path / "flow"}
    add_run("remote", folder, **fields, column_mapping=MAPPING, properties={})
    run = find_stored_run("remote")
    assert (run.folder, run.status) == (folder, "Completed")
    assert delete_own_run("remote") and folder.exists()
