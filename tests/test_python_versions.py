"""The base package on each Python that it supports.

Training and serving are tested on Python 3.11 only: constraints.txt pins the versions that were tested
together, and no such set fits all Pythons (numpy 2.4 needs 3.11, transformers 5.21 dropped 3.10).
Everything that runs with the extra `local` is tried here on each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TIMEOUT_S = 600
# Imports every module that the base and the extra `local` can import, and runs a flow.
CHECK = """
import importlib, pathlib, pkgutil, sys, warnings
import phi3_ops, phi3_tools
warnings.simplefilter("error", SyntaxWarning)
names, missing = [], set()
for package in (phi3_tools, phi3_ops):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
            names.append(module.name)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            missing.add(error.name.partition(".")[0])
assert not missing & {"phi3_tools", "phi3_ops", "requests", "yaml", "pydantic", "jinja2"}, missing
from phi3_tools.evaluation import line_scores
from phi3_tools.flow import load_flow
assert load_flow(pathlib.Path("shop/flows/chat")).nodes
from phi3_tools.client.contracts import CONTRACTS
from phi3_tools import Params
for contract in CONTRACTS.values():
    contract.encode([{"role": "user", "content": "Hello"}], Params(temperature=0), False, None)
print(len(names), sorted(missing))
"""


def find_python(version: str) -> Path | None:
    """Return an interpreter of this version: of pyenv, or on the path."""
    pyenv = shutil.which("pyenv") or str(Path.home() / ".pyenv/bin/pyenv")
    candidates = sorted(Path(pyenv).parents[1].glob(f"versions/{version}.*/bin/python"))
    on_path = shutil.which(f"python{version}")
    return next(iter([*candidates, *([Path(on_path)] if on_path else [])]), None)


def test_the_versions_are_those_of_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'requires-python = ">={VERSIONS[0]}"', text)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(build, check=True, timeout=TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow  # installs packages
@pytest.mark.parametrize("version", VERSIONS)
def test_the_package_works(version, wheel, tmp_path):
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True, timeout=TIMEOUT_S)
    installed = tmp_path / "venv/bin/python"
    options = ("--disable-pip-version-check", "--quiet", "--only-binary", ":all:")
    install = [installed, "-m", "pip", "install", *options, f"{wheel}[local]"]
    subprocess.run(install, check=True, timeout=TIMEOUT_S)
    for words in (["phi3", "--version"], ["phi3", "init", "shop"], ["phi3", "flow", "--help"]):
        program = [installed.with_name(words[0]), *words[1:]]
        subprocess.run(program, cwd=tmp_path, check=True, timeout=TIMEOUT_S, capture_output=True)
    done = subprocess.run(
        [installed, "-c", CHECK], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 100
