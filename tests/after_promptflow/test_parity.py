"""The recordings of the shipped flows: engine, FastAPI form and Agent Framework answer the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phi3_ops.cli import main

RECORDINGS = Path(__file__).parents[1] / "recordings"
NAMES = sorted(folder.name for folder in RECORDINGS.iterdir())
LIMIT_S = 120


def phi3(*words: object) -> str:
    """Run a command of phi3 in a process of its own, and return what it printed."""
    command = [sys.executable, "-m", "phi3_ops", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_answers_the_same_without_promptflow(name, capsys):
    assert main(["flow", "parity", str(RECORDINGS / name)]) == 0
    assert "engine: equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "module"), [("fastapi", "flow.py"), ("agent-framework", "workflow.py")]
)
@pytest.mark.parametrize("name", NAMES)
def test_an_export_answers_the_same_line_by_line_and_32_at_once(name, form, module, tmp_path):
    out = tmp_path / "export"
    assert main(["flow", "export", name, "--to", form, "--out", str(out)]) == 0
    # In a process of its own, because the modules of all exports have the same names.
    output = phi3("flow", "parity", RECORDINGS / name, "--app", out, "--at-once", "32")
    assert f"{module}: equal" in output and "app.py: equal" in output


def test_a_batch_runs_on_the_workflow_and_is_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "export"))
    data = tmp_path / "rows.jsonl"
    data.write_text('{"answer": "a", "ground_truth": "a"}\n{"answer": "b", "ground_truth": "c"}\n')
    phi3("flow", "export", "eval", "--to", "agent-framework", "--out", tmp_path / "export")
    phi3("run", "--flow", "eval", "--data", data, "--name", "engine")
    phi3("run", "--app", tmp_path / "export", "--data", data, "--name", "folder")
    phi3("run", "--app", "workflow:create_workflow", "--data", data, "--name", "factory")
    for name in ("folder", "factory"):
        shown = phi3("runs", "--show", name)
        assert "Completed, 2 answered, 0 failed" in shown
        out = ("--out", tmp_path / "report")
        assert "exact_match" in phi3("compare", "engine", name, "--gate", "exact_match", *out)
