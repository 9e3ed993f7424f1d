"""The command that installs an extra: it works, and it never asks the index for this package's name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from phi3_ops import installation
from phi3_ops.installation import PACKAGE, install_command

ROOT = Path(__file__).parents[2]
# `pip install` with this package's name, which may have extras and a version, as pip reads it.
BY_NAME = re.compile(r"""(?<![\w./-])phi3[-_.]promptflow\s*(\[[^\]]*\]|[=<>~!]=|['"`]|\s|$)""")
INSTALLERS = re.compile(r"\b(pip3?|pipx|uv|uvx|conda|poetry)\b[^\n]*?\b(install|add|run)\b([^\n]*)")


def test_in_a_clone_it_names_the_folder_of_the_clone():
    assert shlex.split(install_command("eval")) == ["pip", "install", "-e", f"{ROOT}[eval]"]


def test_a_folder_with_a_space_is_quoted(monkeypatch, tmp_path):
    clone = tmp_path / "my clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    monkeypatch.setattr(installation, "ROOT", clone)
    assert shlex.split(install_command("azure", "eval"))[-1] == f"{clone}[azure,eval]"


def test_without_a_clone_it_names_the_wheel_of_the_installed_version(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    wheel = f"phi3_promptflow-{metadata.version(PACKAGE)}-py3-none-any.whl"
    assert install_command("eval") == f"pip install './{wheel}[eval]'"


def test_pip_does_not_ask_the_index_where_the_wheel_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "ROOT", tmp_path)
    command = [sys.executable, "-m", *shlex.split(install_command("eval")), "--dry-run"]
    done = subprocess.run(
        [*command, "--index-url", "http://127.0.0.1:9/simple", "--retries", "0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "No such file" in done.stderr and "127.0.0.1" not in done.stderr


@pytest.mark.finding(
    16,
    "somebody registers this package's name on the package index",
    "no text, error or document advises an install by the name; each names the clone or the wheel file",
)
def test_nothing_advises_an_install_by_name():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    advice = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in INSTALLERS.finditer(text):
            if BY_NAME.search(match[3]):
                advice.append(f"{name}: {match[0]}")
    assert not advice


@pytest.mark.parametrize(
    ("line", "is_advice"),
    [
        ("pip install 'phi3-promptflow[eval]'", True),
        ("python -m pip install phi3_promptflow", True),
        ("uv add phi3-promptflow==0.1.0", True),
        ("pip install './phi3_promptflow-0.1.0-py3-none-any.whl[eval]'", False),
        ("pip install -e '/home/me/phi3-promptflow[eval]'", False),
    ],
)
def test_what_counts_as_advice(line, is_advice):
    match = INSTALLERS.search(line)
    assert match is not None and bool(BY_NAME.search(match[3])) is is_advice
