"""Print the training's progress on standard error.

It replaces transformers' ProgressCallback, which also draws its bar in logs and does not show the memory
and the tokens per second.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import psutil  # installed with accelerate
import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LOG_LINES = 10  # lines per run if standard error is not a terminal
# tqdm's default format without the steps per second.
BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
)
EVALUATING, TRAINING = "evaluating", "training"


class Progress(TrainerCallback):
    """Shows a live bar on a terminal, and otherwise (a log, CI) prints a line at each tenth of the run.

    The tokens are those of the trained sequences, including the questions. The time left includes the
    time of the evaluations.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._started = 0.0
        self._first_step = 0
        self._last_tenth = 0
        # The most important figure comes first, since a narrow terminal cuts off the last ones.
        self._figures = {"loss": "loss …", "rate": "", "memory": "", "eval_loss": ""}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        # A resumed training starts at its checkpoint's step; earlier steps do not count for the rate.
        self._first_step = state.global_step
        self._last_tenth = state.global_step * LOG_LINES // state.max_steps
        if sys.stderr.isatty() and state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=TRAINING,
                bar_format=BAR_FORMAT,
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
        self._figures["memory"] = f"{peak_memory() / 1e9:.1f} GB"
        figures = ", ".join(filter(None, self._figures.values()))
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
            self._bar.set_postfix_str(figures, refresh=False)
        elif state.is_world_process_zero:
            self._print_each_tenth(state.global_step, state.max_steps, figures)

    def _print_each_tenth(self, step: int, steps: int, figures: str) -> None:
        tenth = step * LOG_LINES // steps
        if tenth == self._last_tenth and step != steps:
            return
        self._last_tenth = tenth
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
    """Return bytes: the GPU tensors' peak so far, or on a CPU the process's current memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)
