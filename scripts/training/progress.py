"""Print the training's progress on standard error, and that of a pass over the rows before it.

It replaces transformers' ProgressCallback, which also draws its bar in logs and does not show the speed,
the memory and the gradient.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from speed import memory
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LOG_LINES = 10  # lines per run if standard error is not a terminal
PASS_LINES = 4  # likewise, lines per pass over the rows
NO_MARGIN = 1e-3  # larger than the rounding errors of reward margins
# tqdm's default format without the steps per second.
BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
)
EVALUATING, TRAINING = "evaluating", "training"


class Progress(TrainerCallback):
    """Shows a live bar on a terminal, and otherwise (a log, CI) prints a line at each tenth of the run.

    The tokens per second are those of the steps since the last log entry, including the questions. The
    time left includes the time of the evaluations.
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._started = 0.0
        self._first_step = 0
        self._last_tenth = 0
        # The most important figure comes first, since a narrow terminal cuts off the last ones.
        self._figures = dict.fromkeys(
            ("loss", "rate", "mfu", "memory", "eval_loss", "gradient"), ""
        )
        self._figures["loss"] = "loss …"

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
        for name, text in format_figures(logs or {}).items():
            self._figures[name] = text

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
        self._figures["memory"] = f"{memory() / 1e9:.1f} GB"
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


def track(batches: Any, title: str) -> Iterator[Any]:
    """Yield batches; show a bar on a terminal, and otherwise print a line at each quarter.

    Only the main process shows something.

    Args:
        batches: iterable with a length.
        title: what is computed from the batches.
    """
    if os.environ.get("RANK", "0") != "0":
        yield from batches
        return
    if sys.stderr.isatty():
        yield from tqdm(batches, desc=title, bar_format=BAR_FORMAT, leave=False)
        return
    started, last_part, total = time.monotonic(), 0, len(batches)
    for count, batch in enumerate(batches, 1):
        yield batch
        part = count * PASS_LINES // total
        if part != last_part:
            last_part = part
            seconds = (time.monotonic() - started) * (total - count) / count
            percent = 100 * count // total
            line = f"{title} {count}/{total} batches ({percent} %), {seconds:.0f} s left"
            print(line, file=sys.stderr, flush=True)


def format_figures(logs: dict[str, float]) -> dict[str, str]:
    """Return the figures of a log entry as texts, under the names of Progress."""
    figures = {}
    if "loss" in logs:
        figures["loss"] = f"loss {logs['loss']:.3f}"
    if "tokens_per_second" in logs:
        figures["rate"] = f"{logs['tokens_per_second']:,.0f} tokens/s"
    if "mfu" in logs:
        figures["mfu"] = f"MFU {logs['mfu']:.0%}"
    if "grad_norm" in logs:
        figures["gradient"] = f"gradient {logs['grad_norm']:.2g}"
    if "eval_loss" in logs:
        figures["eval_loss"] = f"eval loss {logs['eval_loss']:.3f}"
    if "eval_rewards/margins" in logs:
        margin, accuracy = logs["eval_rewards/margins"], logs["eval_rewards/accuracies"]
        # Before the training, the rewards differ by rounding errors only: their accuracy is noise.
        if abs(margin) > NO_MARGIN:
            figures["eval_loss"] += f" (margin {margin:.2f}, accuracy {accuracy:.0%})"
    return figures
