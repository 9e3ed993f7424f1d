"""The result of a run: the model or the adapter, its metrics, the loss curve and the model card."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import adapters
import metrics
import models
import outputs
import speed
import torch
from checkpoints import step_of
from console import print_line
from recipe_checks import DPO

if TYPE_CHECKING:
    from checkpointing import CheckpointingTrainer
    from general import General
    from inputs import Recipe
    from metrics import Metrics
    from run import Run
    from samples import Samples
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import DPOConfig, SFTConfig


@dataclass(frozen=True)
class Base:
    """The loaded base model, and how to train it.

    Attributes:
        model: base model, with the adapter to start from if there is one.
        tokenizer: its tokenizer, with the chat template that serving uses.
        parameters: number of the model's parameters.
        device: key of devices.PRECISIONS.
        config: TRL's settings.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: int
    device: str
    config: SFTConfig | DPOConfig


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
        trainer: trainer with the trained model and its log.
        samples: sample answers of all epochs, up to that of the saved model.
        seconds: duration of the training.
        saved_step: step whose weights the model has: the last one or the best one.
        evaluation: log entry of the evaluation of the model at that step.
        has_stopped_early: whether the evaluation did not improve any more.
        general: what the base and the trained model can on the general chats, or None without any.
    """

    trainer: CheckpointingTrainer
    samples: Samples
    seconds: float
    saved_step: int
    evaluation: dict[str, Any]
    has_stopped_early: bool
    general: General | None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The trainer's log."""
        return self.trainer.state.log_history


def save(run: Run, base: Base, fitted: Fitted, model: Any, folder: Path) -> Metrics:
    """Save the trained model and its adapter, the metrics, the loss curve and the model card in `folder`.

    Args:
        run: the run.
        base: base model before training.
        fitted: finished training.
        model: trained model, unsharded.
        folder: partial folder of the result.
    """
    recipe, saved_eval_loss = run.inputs.recipe, None
    adapter_folder = folder / "adapter"
    if recipe.lora is not None:
        adapters.save(model, recipe, adapter_folder)
        base.tokenizer.save_pretrained(adapter_folder)
        if recipe.merge:
            model = adapters.merge(model, recipe, adapter_folder)
    if recipe.merge:
        dtype = getattr(torch, recipe.save_dtype or "float32")
        saved_eval_loss = measure_again(run, base, fitted, model, dtype)
        model = model.to(device="cpu", dtype=dtype)
        model.config.use_cache = True
        outputs.save_huggingface(model, base.tokenizer, folder / "model")
        outputs.save_mlflow(model, base.tokenizer, folder / "mlflow")
    run_metrics = collect_metrics(run, base, fitted, saved_eval_loss)
    metrics.write_metrics(run_metrics, folder / outputs.METRICS)
    outputs.write_curve_and_card(
        folder,
        recipe=recipe,
        metrics=run_metrics,
        train_file=run.options.train_files[0],
        history=fitted.history,
        samples=fitted.samples.answers,
        general=fitted.general.comparisons() if fitted.general else (),
    )
    return run_metrics


def measured_weights(recipe: Recipe, device: str) -> str:
    """Return with which weights a run measures its losses and answers (`Metrics.measured_weights`).

    Args:
        recipe: recipe of the run.
        device: key of devices.PRECISIONS.
    """
    if recipe.quantization is not None:
        return metrics.QUANTIZED_WEIGHTS
    is_rounded = recipe.save_dtype not in (None, "float32")
    # Adapters are float32. Merged into such a base, they are rounded to its data type.
    is_rounded |= models.weights_dtype(recipe, device) != torch.float32
    return metrics.UNROUNDED_WEIGHTS if recipe.merge and is_rounded else metrics.SAVED_WEIGHTS


def measure_again(
    run: Run, base: Base, fitted: Fitted, model: PreTrainedModel, dtype: torch.dtype
) -> float | None:
    """Round the model's weights as its file does, and return its evaluation loss.

    Args:
        run: the run.
        base: base model before training.
        fitted: finished training.
        model: trained model with merged adapters.
        dtype: data type of the saved weights.

    Returns:
        The loss, or None if it is that of the training, or was not measured: the loss of preferences
        needs the adapters, several processes have ended their group, and the merged model of a
        quantized base is not on its GPU.
    """
    recipe = run.inputs.recipe
    if measured_weights(recipe, base.device) != metrics.UNROUNDED_WEIGHTS:
        return None
    if recipe.method == DPO or run.process.count > 1:
        return None
    models.round_weights(model, dtype)
    try:
        return fitted.trainer.evaluate_other(model)
    except RuntimeError as error:  # such as too little memory; the model is worth more
        print_line(f"the saved model was not evaluated ({type(error).__name__})")
        return None


def collect_metrics(
    run: Run, base: Base, fitted: Fitted, saved_eval_loss: float | None = None
) -> Metrics:
    """Return the metrics of a finished training; `saved_eval_loss` is the one of Metrics."""
    recipe, resume_from = run.inputs.recipe, run.resume_from
    is_dpo = recipe.method == DPO
    eval_loss, base_eval_loss = (
        fitted.evaluation["eval_loss"],
        metrics.base_eval_loss(fitted.history),
    )
    train_rows, eval_rows = (fitted.trainer.row_counts[name] for name in ("train", "eval"))
    streamed = getattr(fitted.trainer, "streamed", None)
    train_counts = streamed or train_rows
    return metrics.Metrics(
        seconds=round(time.monotonic() - run.started, 2),
        train_seconds=round(fitted.seconds, 2),
        steps=fitted.trainer.state.global_step,
        saved_step=fitted.saved_step,
        has_stopped_early=fitted.has_stopped_early,
        resumed_from=step_of(resume_from) if resume_from else None,
        epochs=round(fitted.trainer.state.epoch, 2),
        tokens=metrics.total_tokens(fitted.history),
        train_loss=metrics.mean_loss(fitted.history),
        last_train_loss=metrics.last_loss(fitted.history),
        eval_loss=eval_loss,
        perplexity=None if is_dpo else math.exp(eval_loss),
        base_eval_loss=base_eval_loss,
        base_perplexity=None if is_dpo else math.exp(base_eval_loss),
        reward_margin=fitted.evaluation.get("eval_rewards/margins"),
        reward_accuracy=fitted.evaluation.get("eval_rewards/accuracies"),
        general_rows=len(fitted.general.rows) if fitted.general else 0,
        general_loss=fitted.general.tuned.loss if fitted.general else None,
        base_general_loss=fitted.general.base.loss if fitted.general else None,
        peak_memory_gb=round(speed.peak_memory() / 1e9, 3),
        tokens_per_second=metrics.median_after_first(fitted.history, "tokens_per_second"),
        mfu=metrics.median_after_first(fitted.history, "mfu"),
        measured_weights=measured_weights(recipe, base.device),
        saved_eval_loss=saved_eval_loss,
        train_files=run.inputs.mixed_files,
        train_rows=run.inputs.train_row_count if streamed else train_rows.total,
        streamed_rows=streamed.total if streamed else None,
        cut_train_rows=train_counts.cut,
        dropped_train_rows=train_counts.dropped,
        eval_rows=eval_rows.total,
        cut_eval_rows=eval_rows.cut,
        dropped_eval_rows=eval_rows.dropped,
        method=recipe.method,
        model=Path(recipe.model).name if Path(recipe.model).is_dir() else recipe.model,
        parameters=base.parameters,
        device=base.device,
        attention=base.model.config._attn_implementation,
        processes=run.process.count,
        threads=torch.get_num_threads(),
        seed=recipe.seed,
        recipe=recipe.name,
        versions=metrics.package_versions(),
    )
