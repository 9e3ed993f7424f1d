"""Fine-tuning on this machine: the job's own train.py, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .. import paths
from ..errors import OpsError
from ..files import read_jsonl

DEFAULT_RECIPE = "tiny-cpu"
# A checkpoint of all weights and the optimizer has tens of GB, and is written when training is stopped.
STOP_S = 900
SAMPLES = "samples.jsonl"  # what train.py keeps of the sample answers
SHOWN = 60  # characters of a text in the table


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


def finetune_locally(
    train_file: Path,
    eval_file: Path,
    out: Path,
    *,
    recipe: str = DEFAULT_RECIPE,
    processes: int = 1,
    extra: Sequence[str] = (),
) -> dict[str, Any]:
    """Run train.py here; its progress goes to this process's standard error.

    Args:
        train_file: rows to train on (JSONL with `messages`).
        eval_file: rows to measure the loss on.
        out: the folder that gets `model/`, `mlflow/` and `metrics.json`.
        recipe: a shipped recipe's name, or a YAML file.
        processes: that train together, one a GPU.
        extra: further arguments of train.py.

    Returns:
        The metrics that train.py wrote.

    Raises:
        OpsError: train.py failed; it has said why on standard error.
    """
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(together if processes > 1 else [])]
    command += [str(paths.TRAINING / "train.py"), "--recipe", str(recipe_file(recipe))]
    command += ["--train-file", str(train_file), "--eval-file", str(eval_file)]
    command += ["--output-dir", str(out), *extra]
    # Spinning threads slow each other down tenfold as soon as anything else runs.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    code = run_child(command, environment)
    if code:
        raise OpsError(f"training stopped with exit code {code}", "Its reason stands above.")
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def base_and_tuned_table(out: Path, metrics: dict[str, Any]) -> Table:
    """What the training gained, on the evaluation's rows: losses, and the sample answers there are.

    Args:
        out: the folder that train.py wrote.
        metrics: what `local` returned.
    """
    # A question's answers from first to last: the first is the base's, the last the fine-tuned model's.
    answers: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(out / SAMPLES) if (out / SAMPLES).exists() else []:
        answers.setdefault(row["question"], []).append(row)
    table = Table(title="Base and fine-tuned", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("wanted", "base", "fine-tuned"):
        table.add_column(name, overflow="fold")
    for key, title in (("eval_loss", "evaluation loss"), ("perplexity", "perplexity")):
        values = (metrics[f"base_{key}"], metrics[key])
        table.add_row(title, "lower", *(f"{value:,.3f}" for value in values))
    if answers:
        right = [
            sum(asked[place]["answer"] == asked[place]["reference"] for asked in answers.values())
            for place in (0, -1)
        ]
        title = f"of {len(answers)} samples, word for word"
        table.add_row(title, str(len(answers)), *map(str, right), end_section=True)
    for question, asked in answers.items():
        said = (question, asked[-1]["reference"], asked[0]["answer"], asked[-1]["answer"])
        table.add_row(*(Text(_shortened(text)) for text in said))
    return table


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def run_child(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a process to its end and return its exit code; it never outlives this one's interrupt."""
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            try:
                child.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
