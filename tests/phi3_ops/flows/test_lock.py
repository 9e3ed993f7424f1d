"""Versions of flows: what is hashed, what is locked, and what never changes afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.cli import main
from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.lock import (
    LOCK_CHANGED,
    LOCK_FILE,
    LOCKED,
    NOT_LOCKED,
    content_hash,
    copy_flow,
    flow_files,
    flow_states,
    lock_flows,
    read_lock,
    save_lock,
    semantic_version,
)

FLOW = """tags: {version: VERSION}
inputs: {q: {type: string}}
nodes: []
"""


def write_flow(folder, version="1.0.0", **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flow.dag.yaml").write_text(FLOW.replace("VERSION", version))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def home(tmp_path):
    """A folder with two flows, both locked."""
    write_flow(tmp_path / "flows" / "one", code="x = 1\n")
    write_flow(tmp_path / "flows" / "two", "0.1.0-rc.1")
    lock_flows(tmp_path / "flows")
    return tmp_path / "flows"


def phi3_flow(capsys, *words):
    code = main(["flow", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


# -- the shipped ones ------------------------------------------------------------------------------


def test_the_shipped_flows_are_as_they_were_locked():
    """Fails when a flow's content changes without a new version: raise it, then `phi3 flow lock`."""
    found = flow_states()
    assert {state.name: state.status for state in found} == dict.fromkeys(
        ("chat", "eval", "judge", "judge_pairwise", "qa"), LOCKED
    )


def test_the_shipped_lock_is_written_as_it_would_be_again(tmp_path):
    save_lock(read_lock(), tmp_path)
    assert (tmp_path / LOCK_FILE).read_bytes() == (paths.FLOWS / LOCK_FILE).read_bytes()


def test_what_the_wheel_leaves_out_is_not_in_the_hash(tmp_path):
    left_out = shutil.ignore_patterns(".*", "__pycache__", "process_log")
    copy = shutil.copytree(paths.FLOWS, tmp_path / "flows", ignore=left_out)
    assert {state.status for state in flow_states(copy)} == {LOCKED}


def test_what_is_ignored_is_not_looked_into(tmp_path, monkeypatch):
    """Prompt flow removes its log's folder while others look."""
    flow = write_flow(tmp_path / "f", code="x = 1\n")
    before = content_hash(flow)
    (flow / "process_log").mkdir()
    scan = os.scandir

    def gone(path):
        if Path(path).name == "process_log":
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert content_hash(flow) == before
    assert content_hash(copy_flow(flow, tmp_path / "copy")) == before


# -- the hash --------------------------------------------------------------------------------------


def test_the_hash_is_that_of_earlier_releases(tmp_path):
    """Another way of hashing would make every published version look changed."""
    flow = write_flow(tmp_path / "f", code="x = 1\n")
    (flow / "sub").mkdir()
    (flow / "sub" / "é.bin").write_bytes(b"\0\r\n")
    assert content_hash(flow) == (
        "1cb27991fbb1b3101676701a8e138559162fc64b6b030943db7a3895d8212752"
    )


@pytest.mark.parametrize(
    "name",
    [
        ".promptflow/a.json",
        "__pycache__/a.pyc",
        "a.pyc",
        ".env",
        "prod.env",
        ".gitignore",
        "key.pem",
    ]
    + ["sub/.venv/lib/a.py", "flow.dag.yaml~", ".DS_Store"],
)
def test_caches_and_secrets_are_neither_hashed_nor_uploaded(tmp_path, name):
    flow = write_flow(tmp_path / "f")
    before = content_hash(flow)
    (flow / name).parent.mkdir(parents=True, exist_ok=True)
    (flow / name).write_text("anything")
    assert content_hash(flow) == before
    assert flow_files(flow) == [flow / "flow.dag.yaml"]


def test_every_other_change_changes_it(tmp_path):
    def with_files(**files):
        shutil.rmtree(tmp_path / "f", ignore_errors=True)
        return content_hash(write_flow(tmp_path / "f", **files))

    found = [
        with_files(),
        with_files(a=""),
        with_files(b=""),
        with_files(a="b"),
        with_files(a="", b=""),
        with_files(a="4:b.py0:"),  # as the frame of a second file would look
        with_files(version="1.0.1"),
    ]
    assert len(set(found)) == len(found)


def test_line_ends_of_text_do_not_count_and_those_of_other_files_do(tmp_path):
    flow = write_flow(tmp_path / "f")

    def with_bytes(content):
        (flow / "a").write_bytes(content)
        return content_hash(flow)

    assert with_bytes(b"a\r\nb\r\n") == with_bytes(b"a\nb\n")
    assert with_bytes(b"a\rb") != with_bytes(b"a\nb")
    assert with_bytes(b"\0\r\n") != with_bytes(b"\0\n")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_is_refused(tmp_path):
    flow = write_flow(tmp_path / "f")
    (tmp_path / "secret.txt").write_text("s")
    (flow / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(OpsError, match=r"notes\.txt is a link"):
        content_hash(flow)


# -- versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0.0", "0.1.0-rc.1", "10.20.30+build.5", "1.0.0-0a"])
def test_semantic_versions(tmp_path, version):
    assert semantic_version(FlowDefinition.read(write_flow(tmp_path / "f", version))) == version


@pytest.mark.parametrize(
    "version", ["1.0", "1", "v1.0.0", "01.0.0", "1.0.0-01", "1.0.0-", '"1.0.0\\n"']
)
def test_what_is_no_semantic_version_is_told(tmp_path, version):
    with pytest.raises(OpsError, match=r"flow\.dag\.yaml: `tags\.version` is .*such as 1\.0\.0"):
        semantic_version(FlowDefinition.read(write_flow(tmp_path / "f", version)))


def test_a_flow_without_a_version_is_told(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "flow.dag.yaml").write_text("inputs: {}\nnodes: []\n")
    with pytest.raises(OpsError, match=r"`tags\.version` is None"):
        flow_states(tmp_path)


# -- the lock --------------------------------------------------------------------------------------


def test_a_second_lock_changes_nothing(home, capsys):
    before = (home / LOCK_FILE).read_bytes()
    assert phi3_flow(capsys, "lock", "--folder", home) == (
        0,
        "2 flows are as they were locked\n",
        "",
    )
    assert (home / LOCK_FILE).read_bytes() == before


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_changed_content_without_a_new_version_is_refused(home, capsys, check):
    before = (home / LOCK_FILE).read_bytes()
    write_flow(home / "one", code="x = 2\n")
    write_flow(home / "three")
    code, out, err = phi3_flow(capsys, "lock", "--folder", home, *check)
    assert (code, out) == (1, "")
    assert err == (
        "phi3 flow: locked with other content: one 1.0.0. Raise `tags.version` in its flow.dag.yaml: "
        "what is locked never changes.\n"
    )
    assert (home / LOCK_FILE).read_bytes() == before  # nothing half-written: not even `three`


def test_a_new_version_is_added_and_the_earlier_one_stays(home, capsys):
    before = read_lock(home)
    write_flow(home / "one", "1.1.0", code="x = 2\n")
    code, out, err = phi3_flow(capsys, "lock", "--folder", home, "--check")
    assert code == 1 and "not locked: one 1.1.0. Run `phi3 flow lock`" in err
    assert read_lock(home) == before
    assert phi3_flow(capsys, "lock", "--folder", home) == (0, "locked one 1.1.0\n", "")
    after = read_lock(home)
    assert list(after["one"]) == ["1.0.0", "1.1.0"]
    assert after["one"]["1.0.0"] == before["one"]["1.0.0"]
    assert phi3_flow(capsys, "lock", "--folder", home, "--check")[0] == 0


def test_going_back_to_a_locked_version_needs_its_content(home):
    write_flow(home / "one", "1.1.0", code="x = 2\n")
    lock_flows(home)
    write_flow(home / "one", "1.0.0", code="x = 2\n")
    with pytest.raises(OpsError, match=r"one 1\.0\.0"):
        lock_flows(home)
    write_flow(home / "one", "1.0.0", code="x = 1\n")
    assert [state.status for state in lock_flows(home)] == [LOCKED] * 2


def test_what_was_published_is_kept(home):
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


@pytest.mark.parametrize(
    "text",
    ["<<<<<<< HEAD\n{}", "[]", '{"one": 3}', '{"one": {"1.0.0": {"sha256": "x", "tools": "1"}}}'],
)
def test_a_broken_lock_is_told_and_left(home, capsys, text):
    (home / LOCK_FILE).write_text(text)
    code, out, err = phi3_flow(capsys, "lock", "--folder", home)
    assert code == 1 and len(err.splitlines()) == 1
    assert "flows.lock.json is no lock" in err and "version control" in err
    assert (home / LOCK_FILE).read_text() == text


def test_a_folder_without_flows_is_told(tmp_path, capsys):
    code, _, err = phi3_flow(capsys, "lock", "--folder", tmp_path)
    assert code == 1 and f"there is no flow in {tmp_path}" in err


def test_list_shows_each_state(home, capsys):
    write_flow(home / "one", code="x = 2\n")
    write_flow(home / "two", "0.2.0")
    code, out, _ = phi3_flow(capsys, "list", "--folder", home)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "1.0.0" in rows["one"] and LOCK_CHANGED in rows["one"]
    assert NOT_LOCKED in rows["two"] and "0.1.0-rc.1" in rows["two"]
