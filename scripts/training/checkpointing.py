"""What both trainers share: complete checkpoints, the best model, and errors instead of warnings."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed
import models
import small_data
import stopping
from accelerate import PartialState
from checkpoints import Checkpoints, file_sizes, is_complete, step_of, write_failure_reason
from console import print_line
from inputs import TrainError
from speed import Speed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from row_counts import RowCounts
    from transformers import Trainer as _Base
else:
    _Base = object


class CheckpointingTrainer(_Base):
    """A trainer that marks complete checkpoints, and stops if a gradient or loss is not finite.

    It comes before TRL's trainer among the base classes.

    Args:
        checkpoints: the run's checkpoints.
        max_cut_share: largest share of a file's rows that max_length may cut or drop.
        args, kwargs: arguments of TRL's trainer.

    Attributes:
        row_counts: counts of the rows that max_length cuts or drops, by TRL's name of the dataset.
        few_steps: a warning if the training has too few steps to learn anything; otherwise "".
    """

    def __init__(
        self, *args: Any, checkpoints: Checkpoints, max_cut_share: float, **kwargs: Any
    ) -> None:
        self._checkpoints = checkpoints
        self._max_cut_share = max_cut_share
        self.row_counts: dict[str, RowCounts] = {}
        super().__init__(*args, **kwargs)
        models.train_in_float32(self.model)
        self.add_callback(CheckpointCallback(checkpoints))
        self._speed = Speed(self.model, self.args.world_size)
        self.add_callback(self._speed)
        self.few_steps = small_data.describe_few_steps(self._count_steps(), self.args.max_steps > 0)

    @property
    def plain_model(self) -> Any:
        """The model without its adapters."""
        return getattr(self.model, "get_base_model", lambda: self.model)()

    def _count_steps(self) -> int:
        """Return the number of optimizer steps of a training from the base model."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        per_epoch = math.ceil(len(self.train_dataset) / (batch * self.args.world_size))
        return math.ceil(per_epoch * self.args.num_train_epochs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the gradient's norm over all processes; called before the weights change.

        Raises:
            TrainError: the norm is not finite, so the next weights would not be either.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # With fp16, infinite gradients are normal: the scaler skips those steps.
        if norm is not None and self.accelerator.scaler is None:
            self._require_finite(float(norm), self.state.global_step + 1)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._require_finite(logs.get("loss", 0.0), self.state.global_step)
        if "loss" in logs:
            logs |= self._speed.measure(self._total_train_tokens)
        super().log(logs, start_time)

    def _require_finite(self, value: float, step: int) -> None:
        if not math.isfinite(value):
            problem = f"the loss or its gradient is not a number at step {step}"
            fix = "lower trainer.learning_rate or raise trainer.warmup_steps, then run again"
            raise TrainError(problem, self._describe_checkpoints(), fix)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = self._checkpoints.path_of(step)
        try:
            # The marker of an earlier run's checkpoint of this step must not remain.
            if self.is_world_process_zero():
                self._checkpoints.begin(step)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
        except Exception as error:
            reason = write_failure_reason(error)
            if reason is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            fix = f"free some space, then run {self._checkpoints.resuming_command}"
            problem = f"cannot write the checkpoint of step {step} ({reason})"
            raise TrainError(problem, self._describe_checkpoints(), fix) from error

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether an evaluation is the best so far; then its step gets a checkpoint, too."""
        is_best = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= is_best and self.args.load_best_model_at_end
        return is_best

    def evaluate_other(self, model: Any) -> float:
        """Return the evaluation loss of another model, without a log entry. It needs a single process.

        Args:
            model: model with the architecture and the device of the trained one.
        """
        trained, self.model = self.model, model
        try:
            result = self.evaluation_loop(self.get_eval_dataloader(), "Evaluation", True)
        finally:
            self.model = trained
        return float(result.metrics["eval_loss"])

    def find_saved_step(self) -> int:
        """Return the step whose weights the model has after the training.

        It is the last step, or with load_best_model_at_end the best one. If the best checkpoint is
        missing, for example because a resumed run has another folder, a line says so.
        """
        if not self.args.load_best_model_at_end:
            return self.state.global_step
        loaded = self.state.best_model_checkpoint
        saved_step = step_of(Path(loaded)) if loaded else self.state.global_step
        best_step = self.state.best_global_step
        if best_step and best_step != saved_step:
            print_line(
                f"the best checkpoint, of step {best_step}, is missing in {self._checkpoints.folder}: "
                f"saving the model of step {saved_step}"
            )
        return saved_step

    def _load_best_model(self) -> None:
        """Load the best checkpoint; without this check, a missing one would only be a warning.

        Raises:
            TrainError: the checkpoint is not complete.
        """
        path = Path(self.state.best_model_checkpoint)
        # The other processes may be here before the main process has written the marker.
        if self.is_world_process_zero() and not is_complete(path):
            fix = f"run {self._checkpoints.resuming_command}"
            raise TrainError("the best checkpoint is not complete", path, fix)
        super()._load_best_model()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: TRL would write its own model card at every checkpoint."""

    def _describe_checkpoints(self) -> str:
        latest = self._checkpoints.latest()
        state = f"step {step_of(latest)} is kept" if latest else "no checkpoint yet"
        return f"{self._checkpoints.folder} ({state})"


class CheckpointCallback(TrainerCallback):
    """Marks each complete checkpoint; after a signal, requests one and stops the training.

    It replaces transformers' `enable_jit_checkpoint`, which handles only SIGTERM, waits three seconds,
    does not make the processes agree on a step, and ends the training as if it were complete.

    Args:
        checkpoints: the run's checkpoints.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._signal: int | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._signal = distributed.largest_value(stopping.pending_signal(), args.world_size)
        control.should_save |= self._signal is not None
        # A checkpoint does not contain the loss that was summed since the last log entry.
        control.should_log |= control.should_save

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        PartialState().wait_for_everyone()
        sizes = file_sizes(self._checkpoints.path_of(state.global_step))
        all_sizes = distributed.gather(sizes, args.world_size)
        if state.is_world_process_zero:
            self._checkpoints.mark_complete(state.global_step, all_sizes)
        if self._signal is not None:
            raise stopping.Stopped(self._signal)
