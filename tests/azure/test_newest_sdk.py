"""The commands also work with the newest azure-ai-ml, which promptflow-azure cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest

from phi3_ops import paths

NEWEST = "1.35.2"
# The golden requests are those of the version that the extra `azure` pins.
FILES = (
    "tests/phi3_ops/azure/test_provision.py",
    "tests/phi3_ops/azure/test_teardown.py",
    "tests/azure/test_deploy_faults.py",
    "tests/azure/test_finetune.py",
    "tests/azure/test_rotate.py",
)
DESELECTED = "not test_the_requests"

pytestmark = pytest.mark.slow


def test_the_journeys_with_the_newest_version(tmp_path):
    assert metadata.version("azure-ai-ml") != NEWEST
    folder = tmp_path / "newest"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*install, f"azure-ai-ml=={NEWEST}"], check=True, timeout=600)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    code = "import azure.ai.ml, importlib.metadata as m; print(m.version('azure-ai-ml'))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert shown.stdout.strip() == NEWEST
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", DESELECTED, *FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-4000:]
