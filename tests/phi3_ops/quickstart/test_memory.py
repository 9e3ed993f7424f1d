"""The peak memory of a process and of the processes that it starts."""

from __future__ import annotations

import subprocess
import sys

from phi3_ops.quickstart.memory import PeakMemory

SIZE = 300 * 2**20
HOLD = f"data = b'x' * {SIZE}; print('ready', flush=True); input()"


def test_memory_of_another_process_counts():
    with PeakMemory() as alone:
        pass
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], **pipes) as child:
        with PeakMemory() as memory:
            child.stdout.readline()
        child.stdin.close()
    assert 0 < alone.peak < memory.peak - SIZE
