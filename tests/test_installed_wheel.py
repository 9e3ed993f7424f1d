"""The wheel, installed far away from any clone: `phi3 init`, then the quickstart in the new project."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900
pytestmark = pytest.mark.slow  # builds a wheel, and fine-tunes a tiny model


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with the wheel; the packages that it needs are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(build, check=True, timeout=TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=TIMEOUT_S)
    install = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, timeout=TIMEOUT_S)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    # .pth files inside that folder are not read, so the editable installation of this clone is invisible.
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def run(environment, *words, cwd, check=True):
    home = environment / "home"
    home.mkdir(exist_ok=True)
    variables = {"HOME": str(home), "PATH": f"{environment / 'venv/bin'}:/usr/bin:/bin"}
    kept = ("LANG", "OMP_NUM_THREADS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    variables.update({name: os.environ[name] for name in kept if name in os.environ})
    done = subprocess.run(
        words, cwd=cwd, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_project_of_the_wheel_works(environment, tmp_path):
    code = "import phi3_ops, phi3_tools; print(phi3_ops.__file__, phi3_tools.__file__)"
    modules = run(environment, "python", "-c", code, cwd=tmp_path).stdout
    assert str(ROOT) not in modules and modules.count(str(environment)) == 2

    run(environment, "phi3", "init", "shop", cwd=tmp_path)
    project = tmp_path / "shop"
    assert "locked" in run(environment, "phi3", "flow", "list", cwd=project).stdout
    try:
        quickstart = run(environment, "phi3", "quickstart", "--model", "tiny", cwd=project)
        assert quickstart.stdout.rstrip().splitlines()[-1].strip().startswith("open")
        words = ("--flow", "qa", "--data", "flows/qa/samples.jsonl", "--evaluate")
        batch = run(environment, "phi3", "run", *words, cwd=project).stdout
        assert "2 lines, 0 failed" in batch
    finally:
        run(environment, "phi3", "quickstart", "--remove", "--yes", cwd=project, check=False)
    assert not (project / ".phi3/model").exists()
