"""The metrics of a finished run, and how they are computed from the trainer's log."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mixture import MixedFile

# Values of Metrics.measured_weights.
SAVED_WEIGHTS, UNROUNDED_WEIGHTS, QUANTIZED_WEIGHTS = "saved", "unrounded", "quantized"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow-skinny")


@dataclass(frozen=True)
class Metrics:
    """Metrics of a finished run; the attributes are the keys of metrics.json.

    Attributes:
        seconds: duration of the whole run.
        train_seconds: duration of the training, without loading and saving.
        steps: number of optimizer steps, including those before a resume.
        saved_step: step whose weights were saved: the last one, or with load_best_model_at_end the best.
        has_stopped_early: whether the training ended because the evaluation did not improve any more.
        resumed_from: step of the checkpoint that the run resumed from.
        epochs: number of epochs that were trained; with `streaming`, the run is one epoch.
        tokens: number of tokens trained on, including questions but not padding.
        train_loss: mean training loss over all steps. The losses are in nats per token, or with the
            method dpo those of the preferences, which are ln 2 without any preference.
        last_train_loss: mean training loss over the last logged steps.
        eval_loss: evaluation loss of the model at `saved_step`, with the weights of `measured_weights`.
        perplexity: exponential of `eval_loss`, or None with the method dpo.
        base_eval_loss: evaluation loss of the base model.
        base_perplexity: exponential of `base_eval_loss`, or None with the method dpo.
        reward_margin: mean difference of the rewards of the chosen and the rejected answers, or None.
            A reward is beta times the change of an answer's log probability since the start.
        reward_accuracy: share of the evaluation's preferences of which the chosen answer has the higher
            reward, or None.
        general_rows: number of general chats, which are unlike the training rows.
        general_loss: loss of that model on the general chats, or None without any.
        base_general_loss: loss of the base model on the general chats, or None without any.
        peak_memory_gb: highest memory of the run in GB (10^9 bytes), of the first process: of the process
            on a CPU, and of the tensors on a GPU.
        tokens_per_second: median of the logged speeds without the first, which includes the warm-up, or
            None without a second one. The time of evaluations and checkpoints is left out.
        mfu: median of the logged model FLOPs utilization, likewise; None on a CPU and on a card whose
            peak is not known.
        measured_weights: weights with which the losses, rewards and answers were measured: "saved";
            "unrounded", before the adapters were merged and the weights were rounded to the data type
            of the file; or "quantized", those of the adapters on the quantized base.
        saved_eval_loss: evaluation loss of the saved model if `measured_weights` is "unrounded" and the
            loss was measured again, or None.
        train_files: counts of each training file if there are several; see mixture.py.
        train_rows: number of rows in the training file, or of an epoch of several files. With
            `streaming`, the number of rows in all files.
        streamed_rows: number of rows that were read from the files with `streaming`, or None. A row that
            was read twice counts twice, and the batch that was read ahead counts, too.
        cut_train_rows: number of training rows that max_length cut or split.
        dropped_train_rows: number of training rows that were left out: max_length left no answer.
        eval_rows: number of rows in the evaluation file.
        cut_eval_rows: number of evaluation rows that max_length cut or split.
        dropped_eval_rows: number of evaluation rows that were left out.
        method: training method, `sft` or `dpo`.
        model: base model, without the path of its folder.
        parameters: number of the base model's parameters.
        device: key of devices.PRECISIONS.
        attention: attention implementation.
        processes: number of processes that trained together.
        threads: number of CPU threads.
        seed: seed of every random choice.
        recipe: name of the recipe.
        versions: versions of the packages.
    """

    seconds: float
    train_seconds: float
    steps: int
    saved_step: int
    resumed_from: int | None
    epochs: float
    tokens: int
    train_loss: float
    last_train_loss: float
    eval_loss: float
    perplexity: float | None
    base_eval_loss: float
    base_perplexity: float | None
    general_rows: int
    general_loss: float | None
    base_general_loss: float | None
    train_rows: int
    cut_train_rows: int
    dropped_train_rows: int
    eval_rows: int
    cut_eval_rows: int
    dropped_eval_rows: int
    model: str
    parameters: int
    device: str
    attention: str
    processes: int
    threads: int
    seed: int
    recipe: str
    versions: dict[str, str]
    method: str = "sft"
    has_stopped_early: bool = False
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    peak_memory_gb: float | None = None
    train_files: Sequence[MixedFile] = ()
    tokens_per_second: float | None = None
    mfu: float | None = None
    measured_weights: str = SAVED_WEIGHTS
    saved_eval_loss: float | None = None
    streamed_rows: int | None = None


def write_metrics(metrics: Metrics, path: Path) -> None:
    """Write the metrics as JSON."""
    path.write_text(json.dumps(asdict(metrics), indent=2) + "\n", encoding="utf-8")


def total_tokens(history: Sequence[dict[str, Any]]) -> int:
    """Return the number of tokens trained on; TRL's own count starts again when a run resumes."""
    total = previous = 0.0
    for count in (entry["num_tokens"] for entry in history if "num_tokens" in entry):
        total += count - previous if count >= previous else count
        previous = count
    return int(total)


def mean_loss(history: Sequence[dict[str, Any]]) -> float:
    """Return the mean training loss over all steps; the Trainer leaves out those before a resume."""
    total = previous_step = 0.0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - previous_step)
            previous_step = entry["step"]
    return total / previous_step


def last_loss(history: Sequence[dict[str, Any]]) -> float:
    """Return the training loss of the last log entry, which is a mean over `logging_steps` steps."""
    return float([entry["loss"] for entry in history if "loss" in entry][-1])


def median_after_first(history: Sequence[dict[str, Any]], key: str) -> float | None:
    """Return the median of a logged figure without its first value, or None without a second one."""
    values = [entry[key] for entry in history if key in entry][1:]
    return statistics.median(values) if values else None


def base_eval_loss(history: Sequence[dict[str, Any]]) -> float:
    """Return the first evaluation loss, which is measured before the first step."""
    return float(next(entry["eval_loss"] for entry in history if "eval_loss" in entry))


def evaluation_at(history: Sequence[dict[str, Any]], step: int) -> dict[str, Any] | None:
    """Return the log entry of the evaluation at a step, or None if the step was not evaluated."""
    entries = (entry for entry in history if entry["step"] == step and "eval_loss" in entry)
    return next(entries, None)


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages among PACKAGES."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
