"""`phi3 flow lock` and `phi3 flow list`, as commands; the Azure ones are in tests/azure."""

from __future__ import annotations

import json

import pytest

from flow_folders import write_flow
from phi3_ops.cli import main
from phi3_ops.flows.lock import LOCK_CHANGED, LOCK_FILE, NOT_LOCKED, lock_flows, read_lock


@pytest.fixture
def home(tmp_path):
    """A folder with two flows, both locked."""
    write_flow(tmp_path / "flows" / "one", code="x = 1\n")
    write_flow(tmp_path / "flows" / "two", "0.1.0-rc.1")
    lock_flows(tmp_path / "flows")
    return tmp_path / "flows"


def phi3_flow(capsys, *words):
    code = main(["flow", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_second_lock_changes_nothing(home, capsys):
    before = (home / LOCK_FILE).read_bytes()
    assert phi3_flow(capsys, "lock", "--folder", home) == (
        0,
        "these flows match their lock: one 1.0.0, two 0.1.0-rc.1\n",
        "",
    )
    assert (home / LOCK_FILE).read_bytes() == before


def test_the_list_as_json(home, capsys):
    code, out, _ = phi3_flow(capsys, "list", "--folder", home, "--json")
    first, second = json.loads(out)["items"]
    assert code == 0 and (first["flow"], first["state"]) == ("one", "locked")
    assert len(first["content"]) == 64 and second["other_versions"] == []


def test_one_flow_is_locked_by_its_name(home, capsys):
    write_flow(home / "one", "1.1.0")
    write_flow(home / "two", "1.0.0")
    assert phi3_flow(capsys, "lock", "two", "--folder", home) == (0, "locked two 1.0.0\n", "")
    assert list(read_lock(home)["one"]) == ["1.0.0"]
    code, _, err = phi3_flow(capsys, "lock", "tow", "--folder", home)
    assert code == 1 and "does not contain a flow 'tow'" in err
    assert err.endswith("did you mean two?\n")


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_changed_content_without_a_new_version_is_refused(home, capsys, check):
    before = (home / LOCK_FILE).read_bytes()
    write_flow(home / "one", code="x = 2\n")
    write_flow(home / "three")
    code, out, err = phi3_flow(capsys, "lock", "--folder", home, *check)
    assert (code, out) == (1, "")
    assert err == (
        "phi3 flow: locked with other content: one 1.0.0. Raise `tags.version` in its flow.dag.yaml: "
        "a locked version never changes.\n"
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


@pytest.mark.parametrize(
    "text",
    ["<<<<<<< HEAD\n{}", "[]", '{"one": 3}', '{"one": {"1.0.0": {"sha256": "x", "tools": "1"}}}'],
)
def test_a_broken_lock_is_an_error_and_stays(home, capsys, text):
    (home / LOCK_FILE).write_text(text)
    code, out, err = phi3_flow(capsys, "lock", "--folder", home)
    assert code == 1 and len(err.splitlines()) == 1
    assert "flows.lock.json is not a valid lock file" in err and "version control" in err
    assert (home / LOCK_FILE).read_text() == text


def test_a_folder_without_flows_is_an_error(tmp_path, capsys):
    code, _, err = phi3_flow(capsys, "lock", "--folder", tmp_path)
    assert code == 1 and f"{tmp_path} does not contain a flow" in err


def test_list_shows_each_state(home, capsys):
    write_flow(home / "one", code="x = 2\n")
    write_flow(home / "two", "0.2.0")
    code, out, _ = phi3_flow(capsys, "list", "--folder", home)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "1.0.0" in rows["one"] and LOCK_CHANGED in rows["one"]
    assert NOT_LOCKED in rows["two"] and "0.1.0-rc.1" in rows["two"]
