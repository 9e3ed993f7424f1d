"""The content of the wheel: the tools for a flow's runtime, and the files that `phi3` uploads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return file


@pytest.mark.parametrize(
    "name",
    [
        "phi3_tools/py.typed",
        "phi3_tools/yamls/phi3_chat.yaml",
        "phi3_ops/samples/facts.jsonl",
        "phi3_ops/chat/page/index.html",
        "phi3_ops/comparison/templates/compare.html",
        "phi3_ops_assets/flows/flows.lock.json",
        "phi3_ops_assets/scripts/training/train.py",
        "phi3_ops_assets/scripts/serving/score.py",
        "phi3_ops_assets/flows/chat/flow.dag.yaml",
        "phi3_ops_assets/connections/phi3.yaml",
        "phi3_ops_assets/scripts/phi3.example.yaml",
        "phi3_ops_assets/examples/ci/github-actions.yml",
        "phi3_ops/project/template/gitignore",
        "phi3_ops/project/template/data/faq.csv",
    ],
)
def test_wheel_holds(wheel, name):
    assert name in zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_no_caches_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert not [
        n for n in names if "__pycache__" in n or ".promptflow" in n or n.startswith("tests")
    ]


def test_installed_wheel_lists_tools_and_finds_its_assets(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from phi3_tools.pf_tools import list_package_tools as tools; from phi3_ops import paths;"
        "import phi3_tools; print(phi3_tools.__file__); print(len(tools()));"
        "print((paths.TRAINING / 'train.py').is_file(), (paths.FLOWS / 'qa').is_dir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-2:] == ["5", "True True"], done.stdout + done.stderr
    assert str(tmp_path) in done.stdout


def test_versions_agree():
    import tomllib

    import phi3_tools

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == phi3_tools.__version__
