"""How far the training is, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

import psutil  # accelerate asks for it
import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

PLAIN_LINES = 10  # on a whole run, where standard error is not a terminal
# tqdm's own, without the steps a second.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
EVALUATING, TRAINING = "evaluating", "training"


class Progress(TrainerCallback):
    """A live bar on a terminal; elsewhere (a log, CI) one plain line every tenth of the way.

    Tokens are those of the trained sequences, questions included; the time left counts what
    evaluations take as well.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._started = 0.0
        self._first_step = 0
        self._last_line = 0
        # In the order of their worth: a narrow terminal cuts off the last.
        self._figures = {"loss": "loss …", "rate": "", "memory": "", "eval_loss": ""}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        # Not 0 where a stopped training goes on: its steps took none of this run's time.
        self._first_step = state.global_step
        self._last_line = state.global_step * PLAIN_LINES // state.max_steps
        if sys.stderr.isatty() and state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=TRAINING, bar_format=BAR
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            rate = logs.get("num_tokens", 0.0) / (time.monotonic() - self._started)
            self._figures["loss"] = f"loss {logs['loss']:.3f}"
            self._figures["rate"] = f"{rate:,.0f} tokens/s"
        if "eval_loss" in logs:
            self._figures["eval_loss"] = f"eval loss {logs['eval_loss']:.3f}"

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bar is not None:
            self._bar.set_description_str(EVALUATING)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bar is not None:
            self._bar.set_description_str(TRAINING)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step, steps = state.global_step, state.max_steps
        self._figures["memory"] = f"{peak_memory() / 1e9:.1f} GB"
        figures = ", ".join(filter(None, self._figures.values()))
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(figures, refresh=False)
        elif state.is_world_process_zero and (
            step * PLAIN_LINES // steps > self._last_line or step == steps
        ):
            self._last_line = step * PLAIN_LINES // steps
            rate = (step - self._first_step) / (time.monotonic() - self._started)
            print(
                f"{TRAINING} {step}/{steps} steps ({100 * step // steps} %), {figures}, "
                f"{rate:.1f} steps/s, {(steps - step) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def peak_memory() -> int:
    """Bytes: the most that tensors took on the GPU, or what this process holds now on a CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)
