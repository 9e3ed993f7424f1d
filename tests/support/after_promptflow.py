"""The environment without promptflow, in which tests/after_promptflow runs; the Makefile makes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PYTHON = Path(sys.prefix) / "after" / "bin" / "python"
TESTS = Path(__file__).resolve().parents[1]
LIMIT_S = 300


def python_after(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the environment without promptflow.

    Args:
        arguments: arguments of Python, such as `-m pytest FILE`.
        env: variables that are added to this process's.
    """
    return subprocess.run(
        [str(PYTHON), *map(str, arguments)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def pytest_after(file: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file in the environment without promptflow."""
    return python_after("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file)
