"""A training whose command was killed is found by its output folder, and stopped."""

from __future__ import annotations

import subprocess
import sys

import pytest

from endpoint_requests import gone
from phi3_ops import paths
from phi3_ops.training.running import stop_trainings

SLEEP = "import time; print('training', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


@pytest.mark.parametrize("code", [SLEEP, STUBBORN])
def test_a_training_is_stopped(tmp_path, code):
    words = [str(paths.TRAINING / "train.py"), "--output-dir", "model"]
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "training\n"
        assert not stop_trainings(tmp_path / "other")
        assert process.poll() is None
        assert stop_trainings(tmp_path / "model", timeout_s=1)
        assert gone(process.pid)
    assert not stop_trainings(tmp_path / "model")
