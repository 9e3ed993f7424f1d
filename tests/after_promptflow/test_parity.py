"""The recordings of the five flows: engine, FastAPI form and Agent Framework answer the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
def test_the_engine_answers_the_same_without_promptflow(name):
    assert "engine: equal" in phi3("flow", "parity", RECORDINGS / name)


@pytest.mark.parametrize(
    ("form", "module"), [("fastapi", "flow.py"), ("agent-framework", "workflow.py")]
)
@pytest.mark.parametrize("name", NAMES)
def test_an_export_answers_the_same_line_by_line_and_32_at_once(name, form, module, tmp_path):
    out = tmp_path / "export"
    phi3("flow", "export", name, "--to", form, "--out", out)
    output = phi3("flow", "parity", RECORDINGS / name, "--app", out, "--at-once", "32")
    assert f"{module}: equal" in output and "app.py: equal" in output
