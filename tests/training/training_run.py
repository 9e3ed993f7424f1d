"""What the training tests share: rows, and the real command line."""

import json
import os
import sys
from pathlib import Path

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"
TINY_RECIPE = TRAINING / "recipes" / "tiny-cpu.yaml"

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Österreich": "Wien"}
QUESTIONS = ["What is the capital of {}?", "Tell me the capital of {}.", "Capital of {}?"]


def conversation(question: str, answer: str) -> dict:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


ROWS = [
    conversation(question.format(country), f"The capital of {country} is {capital}.")
    for country, capital in CAPITALS.items()
    for question in QUESTIONS
]


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def command(rows_file: Path, out: Path, *extra: str, recipe: Path = TINY_RECIPE) -> list[str]:
    files = ["--train-file", str(rows_file), "--eval-file", str(rows_file)]
    line = [sys.executable, str(TRAINING / "train.py"), "--recipe", str(recipe), *files]
    return [*line, "--output-dir", str(out), *extra]


def environment() -> dict[str, str]:
    """No tracking server and no hub: the tests run offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
