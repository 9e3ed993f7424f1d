"""The arrows of the design: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]


def test_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("folder", ["training", "serving"])
def test_uploaded_code_imports_nothing_of_the_repository(folder):
    files = list((ROOT / "scripts" / folder).glob("*.py"))
    assert files
    for file in files:
        assert not _imported(file) & {"phi3_tools", "phi3_ops"}, file


def test_only_pf_tools_imports_promptflow():
    importers = {
        file.name
        for file in (ROOT / "tools" / "phi3_tools").glob("*.py")
        if "promptflow" in _imported(file)
    }
    assert importers == {"pf_tools.py"}


def test_every_tool_module_is_named_in_the_import_contract():
    """A new module would otherwise be free to import promptflow until somebody thought of it."""
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for file in (ROOT / "tools" / "phi3_tools").glob("*.py"):
        if file.stem not in ("__init__", "pf_tools"):
            assert f'"phi3_tools.{file.stem}"' in config, file.stem


def test_a_flow_needs_requests_and_promptflow_core():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = sorted(name.split(">")[0] for name in project["dependencies"])
    assert base == ["promptflow-core", "requests", "urllib3"]  # the last is requests' own
