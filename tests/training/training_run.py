"""Rows, command lines and runs of train.py that the training tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"
TINY_RECIPE = TRAINING / "recipes" / "tiny-cpu.yaml"

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Österreich": "Wien"}
QUESTIONS = ["What is the capital of {}?", "Tell me the capital of {}.", "Capital of {}?"]


def conversation(question: str, answer: str) -> dict:
    """Return a row with one question and its answer."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


ROWS = [
    conversation(question.format(country), f"The capital of {country} is {capital}.")
    for country, capital in CAPITALS.items()
    for question in QUESTIONS
]


def write_rows(path: Path, rows: list) -> Path:
    """Write rows as a JSONL file and return its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arguments(rows_file: Path, out: Path, recipe: Path, *extra: str) -> list[str]:
    """Return train.py's arguments, with one file for training and evaluation unless others are given."""
    files = ["--eval-file", str(rows_file)]
    if "--train-file" not in extra:
        files += ["--train-file", str(rows_file)]
    return ["--recipe", str(recipe), *files, "--output-dir", str(out), *extra]


def command(rows_file: Path, out: Path, *extra: str, recipe: Path = TINY_RECIPE) -> list[str]:
    """Return the command line that runs train.py."""
    return [sys.executable, str(TRAINING / "train.py"), *arguments(rows_file, out, recipe, *extra)]


def environment() -> dict[str, str]:
    """Return environment variables without a tracking server and without the hub."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
    }
    return {**variables, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def start(line: list[str]) -> subprocess.Popen:
    """Start train.py with these arguments."""
    command = [sys.executable, str(TRAINING / "train.py"), *line]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())


def finish(line: list[str], code: int = 0) -> str:
    """Run the training to its end and return its standard error."""
    with start(line) as run:
        output = run.communicate(timeout=300)[1]
    assert run.returncode == code, output
    assert "Traceback" not in output
    return output


def stop_at(line: list[str], step: int, number: int) -> tuple[int, str]:
    """Send a signal when the run prints that step or a later one; return exit code and output."""
    with start(line) as run:
        assert run.stderr is not None
        for output in run.stderr:
            if output.startswith("training ") and int(output.split()[1].split("/")[0]) >= step:
                break
        run.send_signal(number)
        rest = run.stderr.read()
        return run.wait(timeout=60), rest
