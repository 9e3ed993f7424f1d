"""Rows and command lines that the training tests share."""

import json
import os
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
    """Return train.py's arguments, with the same file for training and evaluation."""
    files = ["--train-file", str(rows_file), "--eval-file", str(rows_file)]
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
