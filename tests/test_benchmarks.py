"""The benchmarks that need other machines still run: CI has no GPU, so that nobody would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow  # five child processes, each of which imports the libraries
def test_the_training_benchmark_for_gpus_runs_on_a_cpu(tmp_path):
    rows_file = tmp_path / "rows.json"
    command = [BENCHMARKS / "train_gpu.py", "--json", rows_file, "--config", "tiny"]
    command += ["--device", "cpu", "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(rows_file.read_text())["rows"]
    pairs = {(row["name"].removesuffix(", time"), row["peer_name"]) for row in rows}
    tutorials = "tutorials' recipe"
    alike = {("full", "TRL full"), ("lora", "TRL lora")}
    assert pairs == {*alike, ("best", tutorials), ("full", tutorials)}
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)
    assert "Unsloth" in done.stdout


@pytest.mark.slow
def test_the_training_benchmark_for_cpus(tmp_path):
    rows_file = tmp_path / "rows.json"
    command = [BENCHMARKS / "train_cpu.py", "--json", rows_file, "--seconds", "0.1"]
    command += ["--rounds", "1"]
    # Whether the limits are kept does not count here, so the exit status may be 1.
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    rows = json.loads(rows_file.read_text())["rows"]
    names = {row["name"].removesuffix(", time") for row in rows}
    settings = {"full", "lora", "full, no checkpointing", "lora, no checkpointing"}
    assert names == {*settings, "best"}
    assert all(row["ours"] > 0 for row in rows)


def test_the_benchmark_of_structured_answers_scores_every_reference_as_right():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import structured
    finally:
        sys.path.remove(str(BENCHMARKS))
    for line in structured.DATA.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reference = next(m for m in row["messages"] if m["role"] == "assistant")
        in_words = structured.plain_messages([reference], None, structured.GENERIC)[0]
        for message in (reference, in_words):
            answer, *scores = structured.scores_of(row, message).values()
            assert answer and set(scores) == {1.0}
        assert {"tools", "response_format"} & structured.request_of(row, free=False).keys()
        free = structured.request_of(row, free=True)
        assert all(message["content"] for message in free["messages"])
