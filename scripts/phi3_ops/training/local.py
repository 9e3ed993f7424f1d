"""Fine-tuning on this machine: runs the job's train.py as a child process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table
from rich.text import Text

from .. import paths
from ..errors import OpsError
from ..files import (
    begin_writing,
    find_foreign_file,
    finish_writing,
    read_jsonl,
    refuse_foreign_files,
)
from ..models import EXPORT_NAMES, is_converted_here, resolve_model
from ..terminal import print_text
from ..yaml_files import load_yaml

DEFAULT_RECIPE = "tiny-cpu"
PRETRAINED_RECIPE = "smollm2-cpu"  # for a pretrained model that is converted on this machine
# An interrupted training writes a checkpoint of the weights and the optimizer, which may have tens of GB.
STOP_S = 900
METRICS_FILE = "metrics.json"
SAMPLES_FILE = "samples.jsonl"  # train.py's sample answers
GENERAL_FILE = "general.jsonl"  # its answers to the general chats, before and after the training
GENERAL_SAMPLES = 3  # number of general answers in the table
# The names that train.py replaces in its output folder (RESULT_NAMES), and its checkpoints.
OUTPUT_NAMES = (
    "base", "model", "adapter", "mlflow", METRICS_FILE, "loss.png", SAMPLES_FILE, GENERAL_FILE,
    "checkpoints",
)  # fmt: skip
TRACKING_FOLDER = "mlruns"  # to which train.py adds a run
# Folders that the scoring script writes into a model's folder, and that a killed train.py leaves.
CACHE_NAMES = re.compile(rf"{EXPORT_NAMES}|\.partial-.*")
CELL_WIDTH = 60  # characters of a text in the table


@dataclass(frozen=True)
class TrainingMetrics:
    """The metrics of a training that the commands display; metrics.json contains more.

    Attributes:
        steps: number of optimizer steps.
        epochs: number of epochs that were trained.
        last_train_loss: loss of the last steps of the training.
        eval_loss: loss of the fine-tuned model on the evaluation rows.
        perplexity: perplexity of the fine-tuned model on the evaluation rows, or None for preferences.
        base_eval_loss: loss of the base model on the evaluation rows.
        base_perplexity: perplexity of the base model on the evaluation rows, or None for preferences.
        general_rows: number of general chats, which are unlike the training rows.
        general_loss: loss of the fine-tuned model on the general chats, or None without any.
        base_general_loss: loss of the base model on the general chats, or None without any.
        reward_margin: mean difference of the rewards of the chosen and the rejected answers, or None
            without preferences.
        reward_accuracy: share of the preferences whose chosen answer has the higher reward, or None.
        train_files: `file`, `rows`, `used` and `weight` of each training file if there are several.
    """

    steps: int
    epochs: float
    last_train_loss: float
    eval_loss: float
    perplexity: float | None
    base_eval_loss: float
    base_perplexity: float | None
    general_rows: int = 0
    general_loss: float | None = None
    base_general_loss: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    train_files: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> TrainingMetrics:
        """Read the metrics that train.py wrote into its output folder."""
        values = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def default_recipe(model: str | None) -> str:
    """Return the name of the recipe for a base model if none is given."""
    return PRETRAINED_RECIPE if model and is_converted_here(model) else DEFAULT_RECIPE


def recipe_file(name: str) -> Path:
    """Return the shipped recipe of that name, or the file of that path.

    Raises:
        OpsError: neither exists.
    """
    shipped = paths.TRAINING / "recipes" / f"{name}.yaml"
    for candidate in (shipped, Path(name)):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.yaml")))
    raise OpsError(f"the recipe {name!r} does not exist", f"Use {known}, or give a YAML file.")


def base_model_of(recipe: str, model: str | None) -> str:
    """Return the base model of a training: `model` if it is given, and otherwise the recipe's.

    Args:
        recipe: name of a shipped recipe, or a YAML file.
        model: the command line's model, or None.

    Returns:
        The model, or "" if the recipe cannot be read or names none.

    Raises:
        OpsError: the recipe does not exist.
    """
    return model or str(recipe_content(recipe).get("model", ""))


def recipe_content(recipe: str) -> dict[str, Any]:
    """Return the sections of a recipe; none if it cannot be read: train.py says what is wrong.

    Raises:
        OpsError: the recipe does not exist.
    """
    try:
        content = load_yaml(recipe_file(recipe))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def finetune_locally(
    train_file: Path,
    eval_file: Path,
    out: Path,
    *,
    recipe: str | None = None,
    model: str | None = None,
    general_file: Path | None = None,
    start_from: Path | None = None,
    processes: int = 1,
    more_train_files: Sequence[Path] = (),
    extra: Sequence[str] = (),
) -> TrainingMetrics:
    """Run train.py on this machine; its progress goes to this process's standard error.

    Args:
        train_file, eval_file: rows to train on, and to measure the loss on (chats or preferences).
        out: output folder for `model/`, `mlflow/`, `adapter/` and `metrics.json`.
        recipe: name of a shipped recipe, or a YAML file; None takes that of `default_recipe`.
        model: short name, GGUF file, folder or hub id of the base model; None takes the recipe's.
        general_file: chats unlike the rows, which show what the model forgot; None measures nothing.
        start_from: output folder of an earlier run, model folder or adapter folder; None: the base model.
        processes: number of training processes, one per GPU.
        more_train_files: further rows to train on, which the recipe's `mixture` weighs.
        extra: further arguments of train.py.

    Raises:
        OpsError: train.py failed, and has printed the reason; or the base model cannot be fetched; or a
            file in `out` would be replaced that this product did not write.
    """
    if start_from and not recipe:
        raise OpsError("--from needs a recipe", "Give one with --recipe, for example smollm2-dpo.")
    recipe = recipe or default_recipe(model)
    train_files = (train_file, *more_train_files)
    for file in (*train_files, eval_file, general_file, recipe_file(recipe)):
        if file and not file.is_file():  # looked at first: a failure here leaves no folder behind
            raise OpsError(f"{file} does not exist", "Make the data with `phi3 data`.")
    refuse_foreign_files(out, OUTPUT_NAMES, CACHE_NAMES)
    base_model = base_model_of(recipe, model)
    if start_from:
        extra = ["--from", str(start_from), *extra]
    if model or (is_converted_here(base_model) and not _has_model(start_from)):
        extra = ["--model", resolve_model(base_model).as_posix(), *extra]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else [])]
    command += [str(paths.TRAINING / "train.py"), "--recipe", str(recipe_file(recipe))]
    command += [w for file in train_files for w in ("--train-file", str(file))]
    command += ["--eval-file", str(eval_file)]
    general = ["--general-file", str(general_file)] if general_file else []
    command += [*general, "--output-dir", str(out), *extra]
    _train(command, out)
    return TrainingMetrics.read(out)


def _train(command: list[str], out: Path) -> None:
    """Run train.py, and record what it writes into its output folder.

    Raises:
        OpsError: train.py failed, and has printed the reason.
    """
    names = list(OUTPUT_NAMES)
    if not find_foreign_file(out, [TRACKING_FOLDER]):
        names.append(TRACKING_FOLDER)
    # Waiting threads that spin slow training down tenfold as soon as another process runs.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    begin_writing(out, names)
    print_text("loading the libraries and the model …", to_stderr=True)
    try:
        code = run_child(command, environment)
    finally:
        finish_writing(out, names)
    if code:
        raise OpsError(f"training stopped with exit code {code}", "The reason is printed above.")


def _has_model(folder: Path | None) -> bool:
    """Return whether a folder to start from has a complete model, and not only an adapter."""
    candidates = [folder, folder / "model"] if folder else []
    return any((candidate / "config.json").is_file() for candidate in candidates)


def base_and_tuned_table(out: Path, metrics: TrainingMetrics) -> Table:
    """Return a table of the base and the fine-tuned model: losses, and sample and general answers.

    Args:
        out: output folder of train.py.
        metrics: metrics of the training.
    """
    # Question -> its rows in order: the first is the base model's, the last the fine-tuned model's.
    samples: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(out / SAMPLES_FILE) if (out / SAMPLES_FILE).exists() else []:
        samples.setdefault(row["question"], []).append(row)
    table = Table(title="Base and fine-tuned", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("wanted", "base", "fine-tuned"):
        table.add_column(name, overflow="fold")
    losses = (
        ("evaluation loss", "lower", metrics.base_eval_loss, metrics.eval_loss),
        ("perplexity", "lower", metrics.base_perplexity, metrics.perplexity),
        ("reward margin", "higher", 0.0, metrics.reward_margin),
        ("chosen answer preferred", "higher", None, metrics.reward_accuracy),
    )
    for title, wanted, base, tuned in losses:
        if tuned is not None:
            table.add_row(title, wanted, "" if base is None else f"{base:,.3f}", f"{tuned:,.3f}")
    if metrics.base_general_loss is not None and metrics.general_loss is not None:
        title = f"loss on {metrics.general_rows} general chats"
        table.add_row(
            title, "equal", f"{metrics.base_general_loss:,.3f}", f"{metrics.general_loss:,.3f}"
        )
    for file in metrics.train_files:
        used = f"{file['used']:,} of {file['rows']:,}"
        table.add_row(Text(f"rows of {file['file']}"), "", "", used)
    if samples:
        exact = [
            sum(rows[index]["answer"] == rows[index]["reference"] for rows in samples.values())
            for index in (0, -1)
        ]
        is_trained = all(rows[-1].get("is_trained", True) for rows in samples.values())
        note = "in other words" if is_trained else "not trained on"
        title = f"exact answers of {len(samples)} samples, {note}"
        table.add_row(title, str(len(samples)), *map(str, exact), end_section=True)
    for question, rows in samples.items():
        cells = (question, rows[-1]["reference"], rows[0]["answer"], rows[-1]["answer"])
        table.add_row(*(Text(_shortened(text)) for text in cells))
    general = read_jsonl(out / GENERAL_FILE) if metrics.general_rows else []
    if general:
        table.add_section()
    for row in general[:: max(1, len(general) // GENERAL_SAMPLES)][:GENERAL_SAMPLES]:
        columns = ("question", "reference", "base_answer", "tuned_answer")
        table.add_row(*(Text(_shortened(row[column])) for column in columns))
    return table


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CELL_WIDTH else line[: CELL_WIDTH - 1] + "…"


def run_child(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a process to its end and return its exit code; an interrupt of this process ends it as well."""
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
