"""The checkpoints of an unfinished run: only complete ones, and only of this very run.

transformers writes them (`checkpoint-STEP/`); here each gets a marker once everything else is there,
with the sizes of its files and what it was made from. A folder without one, as a kill in the middle of
writing leaves it, does not count. Nothing is renamed: on a mounted storage that copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inputs import Recipe, Row, TrainError

MARKER = "complete.json"
PREFIX = "checkpoint-"
# How the writers of safetensors and of torch say it, who raise no OSError.
FULL = ("no space left", "storagefull", "file write failed", "unexpected pos", "file too large")
# Settings of `trainer` that may be others when the run goes on: they do not change the weights.
MAY_CHANGE = {
    "save_steps", "save_total_limit", "logging_steps", "logging_first_step", "eval_strategy",
    "eval_steps", "eval_delay", "per_device_eval_batch_size", "eval_packing",
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
}  # fmt: skip


def origin(recipe: Recipe, rows: list[Row], processes: int) -> dict[str, str]:
    """What a run's result follows from, each part as a short hash or number."""
    settings: dict[str, Any] = asdict(recipe)
    model, *_ = (settings.pop(name) for name in ("model", "name", "samples"))
    settings["trainer"] = {
        key: value for key, value in recipe.trainer.items() if key not in MAY_CHANGE
    }
    return {
        "model": _model(model),
        "recipe": _hash(settings),
        "training file": _hash(rows),
        "number of processes": str(processes),
    }


class Checkpoints:
    """A folder of checkpoints.

    Args:
        folder: where they lie; made when the first one is written.
        made_from: what this run's are made from (`origin`).
    """

    def __init__(self, folder: Path, made_from: dict[str, str]) -> None:
        self.folder = folder
        self._made_from = made_from

    def last(self) -> Path | None:
        """The complete checkpoint of the latest step, whatever run it is of."""
        complete = [path for path in self._all() if _is_complete(path)]
        return max(complete, key=step_of, default=None)

    def to_resume(self) -> Path | None:
        """The checkpoint from which this run goes on; None where there is none yet.

        Raises:
            TrainError: it is of a run with another model, recipe or training file.
        """
        found = self.last()
        if found is None:
            return None
        theirs = json.loads((found / MARKER).read_text(encoding="utf-8"))["made_from"]
        other = [part for part, value in self._made_from.items() if theirs.get(part) != value]
        if other:
            fix = "go on with the same, or delete that folder to start afresh"
            raise TrainError(f"the checkpoint was made with another {other[0]}", found, fix)
        return found

    def drop_incomplete(self) -> None:
        """Remove what a kill in the middle of writing left."""
        for path in self._all():
            if not _is_complete(path):
                shutil.rmtree(path, ignore_errors=True)

    def complete(self, step: int) -> None:
        """Mark the checkpoint of that step, now that all of it is written, and drop other runs'."""
        path = self.folder / f"{PREFIX}{step}"
        content = json.dumps({"made_from": self._made_from, "sizes": _sizes(path)}, indent=2)
        with (path / MARKER).open("w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        for other in self._all():
            if step_of(other) > step:
                shutil.rmtree(other, ignore_errors=True)

    def remove(self) -> None:
        """Remove them all: the result is whole, or the run starts afresh."""
        for path in self._all():
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _all(self) -> Iterable[Path]:
        if not self.folder.is_dir():
            return []
        return [
            path for path in self.folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit()
        ]


def step_of(checkpoint: Path) -> int:
    """The step that its name gives."""
    return int(checkpoint.name.removeprefix(PREFIX))


def write_failure(error: Exception) -> str | None:
    """Why a file could not be written, if that is what the error is about."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    full = any(word in str(error).lower() for word in FULL)
    return "the disk is full" if full else None


def _is_complete(path: Path) -> bool:
    try:
        return json.loads((path / MARKER).read_text(encoding="utf-8"))["sizes"] == _sizes(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sizes(path: Path) -> dict[str, int]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != MARKER)
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in sorted(files)}


def _model(name: str) -> str:
    """A folder by its files' names and sizes, since it may have moved; a hub id as it is."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    return _hash([_sizes(folder), (folder / "config.json").read_text(encoding="utf-8")])


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
