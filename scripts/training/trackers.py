"""The trackers of `report_to` besides MLflow: trackio, Weights & Biases and TensorBoard.

Each of them gets the same settings and metrics as MLflow (tracking.py). An error of a tracker ends its
logging and not the training; transformers' own callbacks would end the training.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from console import print_line
from inputs import Recipe, TrainError
from recipe_targets import MLFLOW, TRACKERS

PROJECT = "phi3-finetune"
TENSORBOARD_FOLDER = "tensorboard"


def check_installed(recipe: Recipe, path: Path) -> None:
    """Check that the packages of the recipe's `report_to` are installed.

    Raises:
        TrainError: one of them is not.
    """
    for name in recipe.report_to:
        if importlib.util.find_spec(name) is None:
            fix = f"pip install {TRACKERS[name]}, or remove it from `report_to`"
            raise TrainError(f"`report_to` has {name}, which is not installed", path, fix)


class Tracker(Protocol):
    """What a tracker does: it starts in its constructor."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers at a step."""

    def finish(self, is_complete: bool) -> None:
        """End the run."""


class ProjectTracker:
    """trackio or wandb: both have the functions `init`, `log` and `finish`.

    Args:
        module: name of the package.
        name: name of the run.
        settings: settings of the run.
    """

    def __init__(self, module: str, name: str, settings: dict[str, Any]) -> None:
        self._module, self._is_wandb = importlib.import_module(module), module == "wandb"
        self._module.init(project=PROJECT, name=name, config=settings)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers at a step."""
        self._module.log(numbers, step=step)

    def finish(self, is_complete: bool) -> None:
        """End the run; wandb shows one that is not complete as failed."""
        arguments = {"exit_code": 0 if is_complete else 1} if self._is_wandb else {}
        self._module.finish(**arguments)


class TensorBoard:
    """Writes event files for TensorBoard.

    Args:
        folder: folder for the files of all runs.
        name: name of the run; its folder has the time behind the name.
        settings: settings of the run.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        self._writer = SummaryWriter(str(folder / run))
        self._writer.add_text("settings", str(settings))

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers at a step."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def finish(self, is_complete: bool) -> None:
        """Write what is not written yet."""
        self._writer.close()


class Trackers:
    """The trackers of a run, from `with Trackers(…)` to its end.

    Args:
        names: the recipe's `report_to`; MLflow is left out.
        output_dir: the run's output folder, for the files of TensorBoard.
        settings: settings of the run.
        name: name of the run.
    """

    def __init__(
        self, names: Iterable[str], output_dir: Path, settings: dict[str, Any], name: str
    ) -> None:
        self._names = [tracker for tracker in names if tracker != MLFLOW]
        self._output_dir, self._settings, self._name = output_dir, settings, name
        self._trackers: dict[str, Tracker] = {}

    def __enter__(self) -> Trackers:
        for name in self._names:
            self._try(name, self._start, name)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.finish, error_type is None)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers at a step to each tracker."""
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.log, numbers, step)

    def _start(self, name: str) -> None:
        if name == "tensorboard":
            folder = self._output_dir / TENSORBOARD_FOLDER
            self._trackers[name] = TensorBoard(folder, self._name, self._settings)
        else:
            self._trackers[name] = ProjectTracker(name, self._name, self._settings)

    def _try(self, name: str, action: Callable[..., Any], *args: Any) -> None:
        """Call a tracker; after an error, log nothing more to it, so that the training continues."""
        try:
            action(*args)
        except Exception as error:
            self._trackers.pop(name, None)
            reason = type(error).__name__
            print_line(f"logging to {name} failed and is turned off ({reason}); training continues")
