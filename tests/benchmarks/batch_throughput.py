"""Measures the lines per second of a batch: `phi3 run` compared with `pf run create`.

    python tests/benchmarks/batch_throughput.py --json bench/batch_throughput.json

The commands take turns. Each runs 1,000 lines through flows/qa, with an endpoint in another process
that takes 0.2 s per answer. The ideal is the number of lines in flight divided by 0.2 s. "While
lines run" is the time from the start of the first line to the end of the last one, according to
promptflow's records. "Whole command" is the time from the start of the process to its end, which must be
15 times as fast as the peer's. The memory is the peak of all processes of a command
together (proportional set size, Linux). Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SUPPORT = ROOT / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from bench_rows import Row, report  # noqa: E402
from slow_endpoint import slow_process  # noqa: E402
from stores import make_store  # noqa: E402

LATENCY_S = 0.2
LINES = 1000
IN_FLIGHT = 64
ROUNDS = 2
IDEAL = IN_FLIGHT / LATENCY_S
CONNECTION = "bench"
MIN_SPEEDUP, MIN_COMMAND_SPEEDUP, MIN_OF_IDEAL = 10.0, 15.0, 0.85


@dataclass(frozen=True)
class Timed:
    """A finished command.

    Attributes:
        rate: lines per second of the whole command.
        running: lines per second while lines ran.
        memory: peak memory in MB.
    """

    rate: float
    running: float
    memory: float


def measure(words: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Run a command. Return its seconds, its peak memory in MB and its standard output."""
    import psutil

    started, samples = time.perf_counter(), [0.0]
    ended = threading.Event()

    def watch(process: psutil.Process) -> None:
        while not ended.wait(1.0):
            samples.append(memory(process))

    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        watcher = threading.Thread(target=watch, args=[psutil.Process(child.pid)])
        watcher.start()
        out, _ = child.communicate()
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
    assert child.returncode == 0, out
    return seconds, max(samples) / 2**20, out


def memory(process: Any) -> float:
    """Return the bytes of a process and its children. Shared pages count once."""
    import psutil

    total = 0.0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_full_info().pss
    except psutil.Error:
        pass  # a process has just ended
    return total


def timed(name: str, words: list[str], environment: dict[str, str], home: Path) -> Timed:
    seconds, peak, _ = measure(words, environment)
    (folder,) = (home / ".runs").glob(f"{name}*")
    records = [json.loads(file.read_text()) for file in folder.glob("flow_artifacts/*.jsonl")]
    answered = [record for record in records if record["status"] == "Completed"]
    assert len(answered) == LINES, f"{name}: {len(answered)} lines were answered"
    from datetime import datetime

    begin = min(datetime.fromisoformat(record["start_time"]) for record in records)
    end = max(datetime.fromisoformat(record["end_time"]) for record in records)
    return Timed(LINES / seconds, LINES / (end - begin).total_seconds(), peak)


def run(url: str, folder: Path) -> tuple[list[Timed], list[Timed]]:
    home = make_store(folder / "home")
    environment = {
        **os.environ,
        "PF_HOME_DIRECTORY": str(home),
        "PHI3_HOME": str(folder / "phi3"),
        "PF_TRACING_SKIP_LOCAL_SETUP": "true",
        "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
        "PHI3_KEY": "a-key-for-benchmarks",
    }
    connect = [BIN / "phi3", "connect", "--name", CONNECTION]
    connect += ["--endpoint", url, "--contract", "chat"]
    subprocess.run([*connect, "--no-check"], env=environment, check=True, stdout=subprocess.DEVNULL)
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps({"question": f"question {n}"}) + "\n" for n in range(LINES)))
    shared = ["--flow", str(ROOT / "flows" / "qa"), "--data", str(data)]
    mapping = ["--column-mapping", "input_data=${data.question}"]
    ours, theirs = [], []
    for number in range(ROUNDS):
        our_command = [BIN / "phi3", "run", *shared, *mapping, "--connection", CONNECTION]
        our_command += ["--in-flight", IN_FLIGHT, "--name", f"ours{number}"]
        their_command = [BIN / "pf", "run", "create", *shared, "--connections"]
        their_command += [f"answer.connection={CONNECTION}", *mapping, "--name", f"stock{number}"]
        ours.append(timed(f"ours{number}", list(map(str, our_command)), environment, home))
        theirs.append(timed(f"stock{number}", list(map(str, their_command)), environment, home))
        print(f"round {number + 1}: {ours[-1]} against {theirs[-1]}", file=sys.stderr)
    return ours, theirs


def median(runs: list[Timed], attribute: str) -> float:
    return statistics.median(getattr(run, attribute) for run in runs)


def rows(ours: list[Timed], theirs: list[Timed]) -> list[Row]:
    stock, ideal = "pf run create, defaults", "the ideal"
    rate, running, slow = median(ours, "rate"), median(ours, "running"), median(theirs, "running")
    return [
        Row("while lines run", "lines/s", running, slow, stock, MIN_SPEEDUP, more=True),
        Row("while lines run", "lines/s", running, IDEAL, ideal, MIN_OF_IDEAL, more=True),
        Row(
            "whole command",
            "lines/s",
            rate,
            median(theirs, "rate"),
            stock,
            MIN_COMMAND_SPEEDUP,
            more=True,
        ),
        Row("whole command", "lines/s", rate, IDEAL, ideal, more=True),
        Row("memory", "MB", median(ours, "memory"), median(theirs, "memory"), stock),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, slow_process(LATENCY_S) as url:
        measured = rows(*run(url, Path(folder)))
    print(f"{LINES} lines, {IN_FLIGHT} in flight, {LATENCY_S} s per answer")
    return report(measured, args.json)


if __name__ == "__main__":
    sys.exit(main())
