"""Run the complete loop: answers, feedback, training data, SFT, DPO, comparison. README.md describes it.

python examples/flywheel/run.py --workdir .phi3/flywheel
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

HERE = Path(__file__).resolve().parent
QUESTION_FILES = ("corrected", "paraphrases", "guard")
MAPPING = ("--column-mapping", "input_data=${data.question}", "max_new_tokens=32")
EARLIER_ROWS = 40  # rows of the shipped samples that are mixed in
SFT_EPOCHS = 8
DPO_EPOCHS = 3
STOP_S = 60


class Loop:
    """The commands of the loop, which run in one folder.

    Attributes:
        folder: the current folder of all commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def phi3(self, *words: str, codes: tuple[int, ...] = (0,)) -> None:
        """Run `phi3 …` to its end. End this program if its exit code is not one of `codes`."""
        print(f"\n$ {shlex.join(('phi3', *words))}", flush=True)
        done = subprocess.run((_phi3(), *words), cwd=self.folder)
        if done.returncode not in codes:
            sys.exit(f"phi3 {words[0]} failed with exit code {done.returncode}")

    @contextmanager
    def background(self, *words: str) -> Iterator[str]:
        """Run `phi3 …` until the end of the block. Yield the address that it prints."""
        print(f"\n$ {shlex.join(('phi3', *words))} &", flush=True)
        log = self.folder / f"{words[0]}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                (_phi3(), *words),
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            yield _address(process, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def answer(self, stage: str, model: str) -> None:
        """Serve a model, and run the question files on it.

        Args:
            stage: `before` or `after`, the beginning of the names of the runs.
            model: short name or folder of the model.
        """
        connection = f"flywheel-{stage}"
        words = ("--model", model, "--name", connection, "--connection", connection, "--port", "0")
        with self.background("endpoint", *words, "--workdir", "."):
            for name in QUESTION_FILES:
                data = ("--data", str(HERE / f"{name}.jsonl"), *MAPPING)
                run = ("--connection", connection, "--evaluate", "--name", f"{stage}-{name}")
                self.phi3("run", "--flow", "qa", *data, *run)

    def collect_feedback(self) -> None:
        """Serve a flow with feedback, and send it what its users think."""
        store = ("--feedback", "--feedback-store", "feedback.sqlite")
        words = ("--flow", "qa", "--connection", "flywheel-before", "--port", "0")
        with self.background("serve", *words, *store) as address:
            lines = (HERE / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
            for line in lines:
                _post(f"{address}/feedback", line)
        print(f"sent {len(lines)} pieces of feedback")

    def make_data(self) -> None:
        """Make rows and preferences from the feedback, and add earlier rows."""
        tests = [f"--test={HERE / name}.jsonl" for name in ("paraphrases", "guard")]
        self.phi3("data", "--feedback", "feedback.sqlite", *tests, "--out", "corrections")
        self.phi3("data", "--out", "earlier")
        pairs = ("--source", "corrections/pairs.jsonl", "--test-share", "0.1")
        self.phi3("data", *pairs, "--out", "preferences")
        corrections = (self.folder / "corrections/train.jsonl").read_text(encoding="utf-8")
        earlier = (self.folder / "earlier/train.jsonl").read_text(encoding="utf-8")
        mixed = corrections + "".join(earlier.splitlines(keepends=True)[:EARLIER_ROWS])
        (self.folder / "mixed.jsonl").write_text(mixed, encoding="utf-8")

    def train(self) -> None:
        """Fine-tune on the rows, and then on the preferences."""
        rows = ("--train-file", "mixed.jsonl", "--eval-file", "corrections/train.jsonl")
        sft = ("--model", "smollm2", "--recipe", "smollm2-cpu", "--epochs", str(SFT_EPOCHS))
        self.phi3("finetune", "--local", *sft, *rows, "--output-dir", "sft")
        pairs = ("--train-file", "preferences/train.jsonl", "--eval-file", "preferences/test.jsonl")
        dpo = ("--recipe", "smollm2-dpo", "--from", "sft", "--epochs", str(DPO_EPOCHS))
        self.phi3("finetune", "--local", *dpo, *pairs, "--output-dir", "dpo")

    def compare(self) -> None:
        """Compare the runs of both models. The gate is about the questions that were not corrected."""
        for name in QUESTION_FILES:
            gate = ("--gate", "token_f1") if name == "guard" else ()
            runs = (f"before-{name}", f"after-{name}")
            words = (*runs, "--metric", "token_f1", *gate, "--out", f"compare-{name}")
            self.phi3("compare", *words, codes=(0, 1, 2))

    def forget_connections(self) -> None:
        """Delete the two connections, whose endpoints have ended."""
        for stage in ("before", "after"):
            self.phi3("connections", "--delete", f"flywheel-{stage}")


def _phi3() -> str:
    beside_python = Path(sys.executable).with_name("phi3")
    command = shutil.which(beside_python) or shutil.which("phi3")
    return command or sys.exit("phi3 is not installed")


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Wait until a server is ready, and return its address, such as http://127.0.0.1:8080."""
    address = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if match := re.search(r"http://[\d.]+:\d+", line):
            address = match[0]
        if "Ctrl-C stops" in line:
            return address
    sys.exit(f"the server ended before it was ready; see {log}")


def _post(url: str, body: str) -> None:
    headers = {"content-type": "application/json"}
    response = requests.post(url, data=body.encode(), headers=headers, timeout=30)
    if not response.ok:
        sys.exit(f"{url} answered {response.status_code}: {response.text}")


def print_verdicts(folder: Path) -> int:
    """Print one line per question file: what changed, with its interval.

    Returns:
        The exit code of the gate: 0 if the other questions did not get worse.
    """
    exit_code = 0
    print()
    for name in QUESTION_FILES:
        document = json.loads((folder / f"compare-{name}" / "compare.json").read_text("utf-8"))
        [result] = document["comparisons"]
        difference, low, high = (f"{result[key]:+.3f}" for key in ("difference", "low", "high"))
        verdict = ""
        if gate := document["gate"]:
            verdict, exit_code = f", gate: {gate['verdict']}", gate["exit_code"]
        print(f"{name:12} token_f1 {difference}, 95 % interval {low} to {high}{verdict}")
    return exit_code


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path(".phi3/flywheel"))
    loop = Loop(parser.parse_args().workdir.resolve())
    loop.answer("before", "smollm2")
    loop.collect_feedback()
    loop.make_data()
    loop.train()
    loop.answer("after", "dpo/model")
    loop.compare()
    loop.forget_connections()
    sys.exit(print_verdicts(loop.folder))


if __name__ == "__main__":
    main()
