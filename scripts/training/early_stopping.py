"""Stop when the evaluation no longer improves, and say when the model over-fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from console import print_line
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# A rise of the evaluation loss by less than this share is noise.
NOISE_SHARE = 0.01


class EarlyStopping(TrainerCallback):
    """Ends the training after `patience` evaluations without a gain.

    It replaces transformers' EarlyStoppingCallback, whose count starts again at every resume. This one
    counts in the trainer's log, which a checkpoint contains.

    Args:
        patience: number of evaluations without a gain after which the training ends.
        min_gain: smallest improvement of the metric that counts as a gain.

    Attributes:
        has_stopped: whether it has ended the training.
    """

    def __init__(self, patience: float, min_gain: float = 0.0) -> None:
        self._patience = patience
        self._min_gain = min_gain
        self.has_stopped = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        sign = 1 if args.greater_is_better else -1
        values = [sign * entry[name] for entry in evaluations(state.log_history) if name in entry]
        if count_without_gain(values, self._min_gain) < self._patience:
            return
        if not self.has_stopped:
            print_line(
                f"stopping at step {state.global_step} of {state.max_steps}: {name} did not improve in "
                f"{self._patience} evaluations"
            )
        self.has_stopped = control.should_training_stop = True


def evaluations(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the log entries of the evaluations of trained models, in the order of their steps."""
    return [entry for entry in history if "eval_loss" in entry and entry["step"] > 0]


def count_without_gain(values: Sequence[float], min_gain: float) -> int:
    """Return how many of the last values are not above the best one before them by `min_gain`.

    Args:
        values: metrics of the evaluations; more is better.
        min_gain: smallest improvement that counts.
    """
    best, count = float("-inf"), 0
    for value in values:
        if value > best + min_gain:
            best, count = value, 0
        else:
            count += 1
    return count


def describe_overfitting(history: Sequence[dict[str, Any]], saved_step: int) -> str:
    """Return one line if the evaluation loss rose while the training loss fell, or "".

    Args:
        history: the trainer's log.
        saved_step: step of the saved model.
    """
    evaluated = [entry for entry in history if "eval_loss" in entry]  # the base's has step 0
    if not evaluated:
        return ""
    best, last = min(evaluated, key=lambda entry: entry["eval_loss"]), evaluated[-1]
    losses = [
        entry["loss"] for entry in history if "loss" in entry and entry["step"] > best["step"]
    ]
    rose = last["eval_loss"] > best["eval_loss"] * (1 + NOISE_SHARE)
    if not rose or not losses or losses[-1] > losses[0]:
        return ""
    if saved_step == best["step"]:
        saved = "the model of that step is saved"
    elif best["step"] == 0:
        saved = f"the model of step {saved_step} is saved, and the base was better"
    else:
        saved = f"the model of step {saved_step} is saved; trainer.load_best_model_at_end saves the best"
    return (
        f"over-fitting: the evaluation loss was lowest at step {best['step']} "
        f"({best['eval_loss']:.3f}) and rose to {last['eval_loss']:.3f} at step {last['step']}, while "
        f"the training loss fell to {losses[-1]:.3f}; {saved}"
    )
