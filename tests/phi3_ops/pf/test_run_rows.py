"""Rows of Prompt flow's database, written and read as Prompt flow does."""

from __future__ import annotations

import os

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf import stored_runs
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.run_rows import runs_folder
from phi3_ops.pf.run_types import NewRun
from phi3_ops.pf.store_database import store_folder
from phi3_ops.pf.stored_runs import begin_run, delete_stored_run, end_run, find_stored_run


@pytest.fixture
def new(tmp_path):
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "flow.dag.yaml").write_text("nodes: []\n")
    (tmp_path / "d.jsonl").write_text("{}\n")
    return NewRun(
        name=f"row-{os.getpid()}",
        title="a title",
        flow=tmp_path / "flow",
        data=tmp_path / "d.jsonl",
        base="a-base",
        column_mapping={"text": "${data.text}"},
        connections=None,
        properties={"mine": "x"},
        variant="node.v1",
    )


def test_prompt_flow_reads_what_is_written(new):
    folder = begin_run(new)
    try:
        end_run(new.name, "Completed", {"duration": 2.0, "total_tokens": 7})
        theirs, ours = pf_client().runs.get(new.name), find_stored_run(new.name)
        assert (theirs.name, theirs.display_name, theirs.status) == (
            new.name,
            "a title",
            "Completed",
        )
        assert theirs._output_path == ours.folder == folder
        assert theirs.properties == ours.properties
        assert (theirs.run, theirs.variant) == ("a-base", "${node.v1}")
        assert theirs.column_mapping == ours.column_mapping == new.column_mapping
        assert theirs._created_on == ours.created_on
        assert ours.properties["system_metrics"]["total_tokens"] == 7
        with pytest.raises(OpsError, match="exists already"):
            begin_run(new)
        assert stored_runs._stored_run(theirs) == ours
    finally:
        assert delete_stored_run(new.name)
    assert not folder.exists() and find_stored_run(new.name) is None


def test_the_first_run_creates_the_database(new, tmp_path, monkeypatch):
    """In a process of its own, because Prompt flow reads the store's folder when it is imported."""
    import subprocess
    import sys

    code = f"""
from pathlib import Path
from phi3_ops.pf.run_types import NewRun
from phi3_ops.pf.stored_runs import begin_run, find_stored_run
new = NewRun("first", "t", Path({str(new.flow)!r}), Path({str(new.data)!r}), None, {{}}, None)
assert begin_run(new) == find_stored_run("first").folder
"""
    environment = {**os.environ, "PF_HOME_DIRECTORY": str(tmp_path / "store")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_the_folder_of_runs_is_that_of_the_configuration(tmp_path, monkeypatch):
    assert runs_folder(tmp_path) == store_folder() / ".runs"
    monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path))
    (tmp_path / "pf.yaml").write_text("run:\n  output_path: ${flow_directory}/.runs\n")
    assert runs_folder(tmp_path / "flow") == tmp_path / "flow" / ".runs"
    (tmp_path / "pf.yaml").write_text("run: {output_path: '${flow_directory}'}\n")
    assert runs_folder(tmp_path / "flow") == tmp_path / ".runs"
