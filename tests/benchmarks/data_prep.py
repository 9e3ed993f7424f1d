"""Measures how fast chats are prepared: `phi3 data` compared with the tutorials' script.

    python tests/benchmarks/data_prep.py --json bench/data_prep.json

Both read the same 200,000 chats, which are generated from a seed: 2 to 4 turns and 2 kB each, in
the format of ultrachat_200k. The tutorials' download_dataset.py loads them with the datasets
library, splits them, and writes each part with `json.dump`. Ours reads, checks, counts, searches
for duplicates, splits, hashes and writes. The two take turns, each time in a new process. The times
are medians without the imports. One row compares with the time of the tutorials' loop alone,
another one with their whole script. The memory is the peak (VmHWM, Linux). Exits with 1 if a limit
is missed. If a slow disk affects the result, set TMPDIR=/dev/shm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_rows import Row, report  # noqa: E402

ROWS = 200_000
ROUNDS = 3
SPEED_LIMIT = 3.0  # our speed divided by that of the tutorials' loop, at least
MEMORY_LIMIT_MIB = 500.0

# -- the chats ---------------------------------------------------------------------------------------


def chats(rows: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    chance = random.Random(seed)
    letters = "etaoinshrdlucmfwyp"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(4000)]
    sentences = [
        " ".join(chance.choices(words, k=chance.randint(6, 18))).capitalize() + "."
        for _ in range(5000)
    ]
    for number in range(rows):
        messages = []
        for _ in range(chance.choice((2, 3, 3, 4))):
            answer = " ".join(chance.choices(sentences, k=chance.randint(3, 9)))
            answer = answer.replace(". ", ".\n\n", 1)
            question = " ".join(chance.choices(sentences, k=2))
            messages.append({"content": question, "role": "user"})
            messages.append({"content": answer, "role": "assistant"})
        prompt = messages[0]["content"]
        name = hashlib.sha256(f"{number} {prompt}".encode()).hexdigest()
        yield {"prompt": prompt, "prompt_id": name, "messages": messages}


def write_chats(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for chat in chats(rows):
            file.write(json.dumps(chat, ensure_ascii=False) + "\n")


# -- the two scripts: each reads a file, writes to a folder, and returns seconds by name --------------


def ours(source: Path, out: Path) -> dict[str, float]:
    from phi3_ops.data.prepare import prepare_data

    start = time.perf_counter()
    rows = prepare_data(source, out, seed=1).rows
    seconds = time.perf_counter() - start
    assert rows.rejected == 0
    return {"all": seconds}


def tutorials(source: Path, out: Path) -> dict[str, float]:
    """download_dataset.py: load_and_split_dataset, then save_dataset_to_jsonl of each half."""
    import datasets

    datasets.disable_progress_bars()
    start = time.perf_counter()
    dataset = datasets.load_dataset(
        "json", data_files=str(source), split="train", cache_dir=str(out / "cache")
    )
    parts = dataset.train_test_split(test_size=0.2)
    loaded = time.perf_counter()
    for name in ("train", "test"):
        with open(out / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for record in parts[name]:
                json.dump(record, file)
                file.write("\n")
    end = time.perf_counter()
    return {"all": end - start, "loop": end - loaded}


PEERS = {"ours": ours, "tutorials": tutorials}


def run(peer: str, source: Path, out: Path) -> None:
    """Run a script in this process, and print its times and its peak memory as JSON."""
    figures = PEERS[peer](source, out)
    # ru_maxrss of getrusage does not work here: a child process inherits it from its parent.
    status = Path("/proc/self/status").read_text()
    figures["mib"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(figures))


def measured(peer: str, source: Path, rows: int) -> dict[str, float]:
    """Run a script in a new process. Return its times and memory; check and delete its output."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, __file__, "--run", peer, str(source), folder]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": folder}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        halves = [Path(folder, f"{name}.jsonl") for name in ("train", "test")]
        written = [sum(1 for _ in path.open("rb")) for path in halves]
        assert written == [rows * 4 // 5, rows // 5], written
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures


# -- report ------------------------------------------------------------------------------------------


def measure(rows: int, rounds: int) -> Iterator[Row]:
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "chats.jsonl")
        write_chats(source, rows)
        for number in range(rounds):
            for peer in PEERS:
                figures[peer].append(measured(peer, source, rows))
                print(f"round {number + 1}: {peer} {figures[peer][-1]}", file=sys.stderr)

    def rate(peer: str, name: str) -> float:
        return rows / statistics.median(run[name] for run in figures[peer])

    def peak(peer: str) -> float:
        return max(run["mib"] for run in figures[peer])

    speed, loop = rate("ours", "all"), rate("tutorials", "loop")
    yield Row("prepare, at least", "rows/s", speed, loop, "tutorials' loop", SPEED_LIMIT, more=True)
    yield Row("prepare", "rows/s", speed, rate("tutorials", "all"), "tutorials, all", more=True)
    yield Row("peak memory", "MiB", peak("ours"), MEMORY_LIMIT_MIB, "limit", 1.0)
    yield Row("peak memory", "MiB", peak("ours"), peak("tutorials"), "tutorials, all")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows to this file"
    )
    parser.add_argument(
        "--rows", type=int, default=ROWS, help="number of chats (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)  # for the process of one script
    args = parser.parse_args()
    if args.run:
        run(args.run[0], Path(args.run[1]), Path(args.run[2]))
        return 0
    rows = list(measure(args.rows, args.rounds))
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
