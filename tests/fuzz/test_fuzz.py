"""Each fuzzer runs for ten seconds and finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HANG_S = 180  # a limit for what must not hang, never a measurement


@pytest.mark.slow
@pytest.mark.parametrize("name", ["endpoint", "serve", "client"])
def test_a_short_run_finds_nothing(name):
    script = Path(__file__).with_name(f"{name}.py")
    done = subprocess.run(
        [sys.executable, script, "10", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: seed 1" in done.stdout
    assert "0 kinds of failures" in done.stdout
