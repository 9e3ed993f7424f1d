"""How far the training is, on standard error; and its metrics, where a tracking server listens."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

PLAIN_LINES = 10  # on a whole run, where standard error is not a terminal


class Progress(TrainerCallback):
    """A live bar on a terminal; elsewhere (a log, CI) one plain line every tenth of the way."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._started = 0.0
        self._last_line = 0
        self._figures = "loss …"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        if sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, desc="training", unit="step", leave=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            tokens = logs.get("num_tokens", 0.0) / (time.monotonic() - self._started)
            self._figures = f"loss {logs['loss']:.3f}, {tokens:,.0f} tokens/s"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step, steps = state.global_step, state.max_steps
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(self._figures, refresh=False)
        elif step * PLAIN_LINES // steps > self._last_line or step == steps:
            self._last_line = step * PLAIN_LINES // steps
            seconds = time.monotonic() - self._started
            left = seconds / step * (steps - step)
            print(
                f"training {step}/{steps} steps ({100 * step // steps} %), {self._figures}, "
                f"{step / seconds:.1f} steps/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class Tracking(TrainerCallback):
    """Sends the loss curve to the MLflow server that Azure ML names in the job's environment.

    Not transformers' own callback: it ends the training when the server refuses a request, and Azure
    ML's refuses what it does not know of newer MLflow versions. A curve is not worth a GPU's hours.
    """

    def __init__(self) -> None:
        self._on = "MLFLOW_TRACKING_URI" in os.environ

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not self._on or not logs:
            return
        import mlflow

        try:
            mlflow.log_metrics(
                {key: value for key, value in logs.items() if isinstance(value, (int, float))},
                step=state.global_step,
            )
        except Exception as error:  # whatever it is, the training goes on
            self._on = False
            name = type(error).__name__
            print(
                f"train.py: no more metrics to MLflow ({name}); training goes on", file=sys.stderr
            )
