"""The benchmarks that need other machines still run: CI has no GPU, so that nobody would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"


def test_the_serving_benchmark_for_gpus_runs_on_a_cpu(tmp_path):
    rows_file = tmp_path / "rows.json"
    command = [BENCHMARKS / "serving_gpu.py", "--json", rows_file, "--config", "tiny"]
    command += ["--device", "cpu", "--seconds", "0.1", "--prompt", "8", "--new", "4"]
    # Whether the limits are kept does not count on this machine, so the exit status may be 1.
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    rows = json.loads(rows_file.read_text())["rows"]
    assert [row["name"] for row in rows[::2]] == [f"tiny, {n} clients" for n in (1, 16, 64)]
    assert all(row["ours"] > 0 for row in rows)
