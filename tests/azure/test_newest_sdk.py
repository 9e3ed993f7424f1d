"""The commands also work with the newest azure-ai-ml, which promptflow-azure cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from phi3_ops import paths

NEWEST = "1.35.2"
FOLDERS = (Path(__file__).parent, Path(__file__).parents[1] / "phi3_ops" / "azure")
# These tests do not run with the newest version; each with the reason.
EXCLUDED = {
    "test_flow_promote.py": "promptflow-azure uploads the flow",
    "test_flow_upload.py": "promptflow-azure uploads the flow",
    "test_foundry_run.py": "promptflow-azure downloads the run",
    "test_documented_commands.py": "it uploads a flow, and it is slow",
    "test_whole_path.py": "it really trains, which takes minutes; the other files cover its requests",
    "test_newest_sdk.py": "it is this file",
}
# The golden requests are those of the version that the extra `azure` pins.
DESELECTED = "not test_the_requests and not TestRequests"

pytestmark = pytest.mark.long


def files() -> list[Path]:
    """Return the files of tests that run with the newest version."""
    tests = (file for folder in FOLDERS for file in sorted(folder.glob("test_*.py")))
    return [file for file in tests if file.name not in EXCLUDED]


def test_the_journeys_with_the_newest_version(tmp_path):
    assert metadata.version("azure-ai-ml") != NEWEST
    folder = tmp_path / "newest"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*install, f"azure-ai-ml=={NEWEST}"], check=True, timeout=600)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    code = "import azure.ai.ml, importlib.metadata as m; print(m.version('azure-ai-ml'))"
    version = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert version.stdout.strip() == NEWEST
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not long",
        "-k",
        DESELECTED,
        *files(),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2200,
    )
    assert done.returncode == 0, done.stdout[-4000:]
