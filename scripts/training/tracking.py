"""Log metrics and files to MLflow (the server in the environment, or local files) and other trackers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from console import print_line
from recipe_targets import MLFLOW
from trackers import Trackers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import flatten_dict

EXPERIMENT = "phi3-finetune"
MAX_PARAM_LENGTH = 500  # characters; Azure ML has the lowest limit of the MLflow servers


class Tracking(TrainerCallback):
    """One MLflow run, from `with Tracking(…)` to its end: FINISHED, FAILED or KILLED.

    It replaces transformers' MLflowCallback, which stops the training when the server refuses a
    request; Azure ML's server refuses some requests of newer MLflow versions. MLflowCallback also logs
    the Trainer's settings instead of the recipe, and ends the run before the result's files exist.

    Args:
        folder: folder to log to if MLFLOW_TRACKING_URI is not set.
        settings: settings of the run, which become MLflow's parameters; nested ones are named `a.b`.
        name: name of a new run; Azure ML starts the run itself.
        report_to: trackers; without mlflow, nothing is logged to MLflow.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        name: str,
        report_to: Sequence[str] = (MLFLOW,),
    ) -> None:
        self._folder, self._settings, self._name = folder, settings, name
        self._is_enabled = MLFLOW in report_to
        self._others = Trackers(report_to, folder.parent, settings, name)

    def __enter__(self) -> Tracking:
        self._others.__enter__()
        self._try(self._start)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import mlflow

        if error_type is None:
            status = "FINISHED"
        else:
            status = "FAILED" if issubclass(error_type, Exception) else "KILLED"
        self._try(mlflow.end_run, status)
        self._others.__exit__(error_type, error, traceback)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero:
            self.log(logs or {}, state.global_step)

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log the metrics that are numbers."""
        import mlflow

        numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        self._try(mlflow.log_metrics, numbers, step=step)
        self._others.log(numbers, step)

    def attach(self, files: Iterable[Path]) -> None:
        """Add the files that exist to the run."""
        import mlflow

        for path in files:
            if path.exists():
                self._try(mlflow.log_artifact, str(path))

    def _start(self) -> None:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            # MLflow 3 needs permission for plain files; its databases need further packages.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            import mlflow

            mlflow.set_tracking_uri(self._folder.resolve().as_uri())
            mlflow.set_experiment(EXPERIMENT)
        import mlflow

        is_started = "MLFLOW_RUN_ID" in os.environ
        mlflow.start_run(run_name=None if is_started else self._name)
        mlflow.log_params(to_params(self._settings))

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call MLflow; after an error, log nothing more, so that the training continues."""
        if not self._is_enabled:
            return
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._is_enabled = False
            name = type(error).__name__
            print_line(f"logging to MLflow failed and is turned off ({name}); training continues")


def to_params(settings: dict[str, Any]) -> dict[str, str]:
    """Return settings as MLflow parameters: nested ones under dotted names, and without empty ones."""
    return {
        name: str(value)[:MAX_PARAM_LENGTH]
        for name, value in flatten_dict(settings).items()
        if value is not None and value != {}
    }
