"""Fine-tuning on this machine: the job's own train.py, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import paths
from .errors import OpsError

DEFAULT_RECIPE = "tiny-cpu"


def recipe_file(name: str) -> Path:
    """The recipe of that name, or the file of that path.

    Raises:
        OpsError: there is none.
    """
    shipped = paths.TRAINING / "recipes" / f"{name}.yaml"
    for candidate in (shipped, Path(name)):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.yaml")))
    raise OpsError(f"there is no recipe {name!r}", f"Choose one of {known}, or give a YAML file.")


def local(
    train_file: Path,
    eval_file: Path,
    out: Path,
    *,
    recipe: str = DEFAULT_RECIPE,
    extra: Sequence[str] = (),
) -> dict[str, Any]:
    """Run train.py here; its progress goes to this process's standard error.

    Args:
        train_file: rows to train on (JSONL with `messages`).
        eval_file: rows to measure the loss on.
        out: the folder that gets `model/`, `mlflow/` and `metrics.json`.
        recipe: a shipped recipe's name, or a YAML file.
        extra: further arguments of train.py.

    Returns:
        The metrics that train.py wrote.

    Raises:
        OpsError: train.py failed; it has said why on standard error.
    """
    command = [
        sys.executable,
        str(paths.TRAINING / "train.py"),
        "--recipe",
        str(recipe_file(recipe)),
    ]
    command += ["--train-file", str(train_file), "--eval-file", str(eval_file)]
    command += ["--output-dir", str(out), *extra]
    # Spinning threads slow each other down tenfold as soon as anything else runs.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    code = run_child(command, environment)
    if code:
        raise OpsError(f"training stopped with exit code {code}", "Its reason stands above.")
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def run_child(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a process to its end and return its exit code; it never outlives this one's interrupt."""
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
