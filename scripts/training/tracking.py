"""Metrics and artifacts to MLflow: to the server that the environment names, or to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXPERIMENT = "phi3-finetune"
LONGEST_PARAM = 500  # characters; the smallest that MLflow's servers accept, Azure ML's


class Tracking(TrainerCallback):
    """One MLflow run, from `with Tracking(…)` to its end: FINISHED, FAILED or KILLED.

    Not transformers' own callback: that ends the training when the server refuses a request, and
    Azure ML's refuses what it does not know of newer MLflow versions. A curve is not worth a GPU's
    hours.

    Args:
        store: the folder to log to where MLFLOW_TRACKING_URI is not set.
        params: what the run is made with; nested ones are named `a.b`.
        name: the run's name where MLflow starts one; Azure ML has started its own.
    """

    def __init__(self, store: Path, params: dict[str, Any], name: str) -> None:
        self._store, self._params, self._name = store, params, name
        self._on = True

    def __enter__(self) -> Tracking:
        self._try(self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import mlflow

        status = (
            "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        )
        self._try(mlflow.end_run, status)

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
        """Log the numbers among `metrics`."""
        import mlflow

        numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        self._try(mlflow.log_metrics, numbers, step=step)

    def attach(self, files: Iterable[Path]) -> None:
        """Add those of the files that there are to the run."""
        import mlflow

        for path in files:
            if path.exists():
                self._try(mlflow.log_artifact, str(path))

    def _start(self) -> None:
        if "MLFLOW_TRACKING_URI" not in os.environ:
            # MLflow 3 refuses plain files unless asked for; a database needs packages of its own.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            import mlflow

            mlflow.set_tracking_uri(self._store.resolve().as_uri())
            mlflow.set_experiment(EXPERIMENT)
        import mlflow

        running = "MLFLOW_RUN_ID" in os.environ
        mlflow.start_run(run_name=None if running else self._name)
        mlflow.log_params(dict(_flat(self._params)))

    def _try(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Whatever goes wrong with MLflow, the training goes on."""
        if not self._on:
            return
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._on = False
            name = type(error).__name__
            print(f"train.py: no more to MLflow ({name}); training goes on", file=sys.stderr)


def _flat(params: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)[:LONGEST_PARAM]
