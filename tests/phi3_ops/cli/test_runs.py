"""`phi3 runs` lists, shows and deletes runs of either store."""

from __future__ import annotations

import json

import pytest

from phi3_ops import paths
from phi3_ops.cli import main
from phi3_ops.files import write_jsonl
from phi3_ops.pf import store_database
from phi3_ops.runs.batch import run_flow

COLUMNS = {"answer": "${data.answer}", "ground_truth": "${data.ground_truth}"}


@pytest.fixture(params=["1.18.5", ""], ids=["with promptflow", "without promptflow"])
def run(request, tmp_path, monkeypatch):
    if not request.param:
        monkeypatch.setattr(store_database, "installed_version", lambda package: "")
        monkeypatch.setenv("PHI3_HOME", str(tmp_path / "phi3"))
    data = tmp_path / "answers.jsonl"
    write_jsonl(data, [{"answer": "a\x1b[2J", "ground_truth": "a"}] * 12)
    return run_flow(paths.FLOWS / "eval", data, COLUMNS, title="listed")


def test_list_show_and_delete(run, capsys, monkeypatch):
    assert main(["runs", "--last", "1"]) == 0
    assert f"{run.name}" in capsys.readouterr().out.replace("\n", "")
    assert main(["runs", "--last", "1", "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert (item["name"], item["status"]) == (run.name, "Completed")
    assert main(["runs", "--show", "listed"]) == 0
    output = capsys.readouterr().out
    assert f"{run.name}: Completed, 12 answered, 0 failed" in output
    assert "  metric exact_match: " in output and "the other 2 lines" in output
    assert "\x1b" not in output
    assert main(["runs", "--show", "listed", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["metrics"]["exact_match"]) == (run.name, 0)
    assert [item["line"] for item in document["items"]] == list(range(12))
    assert all(item["outputs"] and item["error"] is None for item in document["items"])
    assert main(["runs", "list", "--last", "1"]) == 0
    assert run.name in capsys.readouterr().out.replace("\n", "")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert main(["runs", "--delete", run.name]) == 1
    assert "cannot ask for confirmation without a terminal. Give --yes." in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert main(["runs", "--delete", run.name]) == 1
    assert main(["runs", "--delete", run.name, "--yes"]) == 0
    assert main(["runs", "--show", run.name]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_deletion_has_no_json(capsys):
    assert main(["runs", "--delete", "x", "--yes", "--json"]) == 1
    assert "--json has no effect with --delete. Remove --json." in capsys.readouterr().err
