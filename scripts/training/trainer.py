"""TRL's trainer, which here stops on a loss that is no number, and knows a checkpoint's whole story."""

from __future__ import annotations

import math
import shutil
from typing import Any

import distributed
import stopping
from checkpoints import PREFIX, Checkpoints, step_of, write_failure
from inputs import TrainError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer


class Trainer(SFTTrainer):
    """SFTTrainer with checkpoints that are whole or absent, and gradients that are numbers or an error.

    Args:
        checkpoints: where they go.
        place: of this process among those that train together.
        everything else: SFTTrainer's.
    """

    def __init__(self, *args: Any, checkpoints: Checkpoints, place: distributed.Place, **more: Any):
        self._checkpoints = checkpoints
        self._place = place
        super().__init__(*args, **more)
        self.add_callback(_Keeper(checkpoints, place))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm over all processes, after the backward pass and before the weights change.

        Raises:
            TrainError: it is no finite number, so that neither is the loss or the next step's.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # fp16's scaler meets infinite gradients as a matter of course, and leaves those steps out.
        if norm is not None and self.accelerator.scaler is None:
            self._require_finite(float(norm), self.state.global_step + 1)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._require_finite(logs.get("loss", 0.0), self.state.global_step)
        super().log(logs, start_time)

    def _require_finite(self, value: float, step: int) -> None:
        if not math.isfinite(value):
            fix = "lower trainer.learning_rate or raise trainer.warmup_steps, then run again"
            raise TrainError(
                f"the loss or its gradient is not a number at step {step}", self._kept(), fix
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self._checkpoints.folder / f"{PREFIX}{self.state.global_step}"
        # An earlier run's of the same step: its marker must not stand for this one.
        if self._place.main:
            shutil.rmtree(folder, ignore_errors=True)
        distributed.together(self._place)
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            reason = write_failure(error)
            if reason is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            fix = "make room, then run the same command with --resume"
            problem = f"cannot write the checkpoint of step {self.state.global_step} ({reason})"
            raise TrainError(problem, self._kept(), fix) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Not TRL's, which would go into the checkpoints' folder at every checkpoint."""

    def _kept(self) -> str:
        last = self._checkpoints.last()
        folder = self._checkpoints.folder
        return f"{folder} ({f'step {step_of(last)} is kept' if last else 'no checkpoint yet'})"


class _Keeper(TrainerCallback):
    """Marks each checkpoint when it is whole, and has one made when a signal asks to stop."""

    def __init__(self, checkpoints: Checkpoints, place: distributed.Place) -> None:
        self._checkpoints = checkpoints
        self._place = place
        self._signal: int | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._signal = distributed.agreed(stopping.noted(), self._place)
        control.should_save |= self._signal is not None
        # What the loss added up to since the last entry is not in a checkpoint.
        control.should_log |= control.should_save

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        distributed.together(self._place)
        if self._place.main:
            self._checkpoints.complete(state.global_step)
        if self._signal is not None:
            raise stopping.Stopped(self._signal)
