"""The checkpoints of an unfinished run: only complete ones, and only those of the same run.

transformers writes them (`checkpoint-STEP/`). A complete checkpoint also has a marker file, which is
written last and holds the sizes of the other files and the fingerprint of the run. A folder without a
valid marker was interrupted while it was written, and is ignored. Checkpoints are never renamed, since
renaming on mounted storage copies the files. (transformers' `get_last_checkpoint` ignores completeness.)

Checkpoints that train.py did not write are never removed: a folder that has one is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inputs import Recipe, Row, TrainError
from start import ADAPTER_CONFIG, base_identity

MARKER = "complete.json"
STARTED = "started-by-train.py"  # file in each checkpoint, from its beginning
PREFIX = "checkpoint-"
RESUMING_COMMAND = "the same command with --resume"
# Texts of the errors that safetensors and torch raise when the disk is full; they raise no OSError.
DISK_FULL_TEXTS = (
    "no space left", "storagefull", "file write failed", "unexpected pos", "file too large",
)  # fmt: skip
# A resumed run may change these `trainer` settings: they do not change the weights.
CHANGEABLE_SETTINGS = {
    "save_steps", "logging_steps", "logging_first_step", "eval_strategy",
    "eval_steps", "eval_delay", "per_device_eval_batch_size", "eval_packing",
    "dataloader_num_workers", "dataloader_prefetch_factor",
}  # fmt: skip
# Files of a model or adapter, beside its weights, that determine the result of a training.
MODEL_FILES = (
    "config.json", ADAPTER_CONFIG, "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip
# These sections do not change the weights either, or (`mixture`) only through the rows.
UNHASHED_SECTIONS = (
    "model", "name", "samples", "max_cut_share", "merge", "mixture", "report_to", "push_to_hub",
    "hub_model_id", "hub_private",
)  # fmt: skip


def fingerprint(
    recipe: Recipe, rows: list[Row] | str, processes: int, adapter: Path | None = None
) -> dict[str, str]:
    """Return everything that determines a run's result, each part as a short hash or number.

    Args:
        recipe: recipe of the run.
        rows: training rows, or the hash of those that are streamed.
        processes: number of processes that train together.
        adapter: folder of the adapter to start from, or None.
    """
    settings: dict[str, Any] = asdict(recipe)
    for name in UNHASHED_SECTIONS:
        del settings[name]
    # An older checkpoint's hash was made without these sections.
    for name in ("revision", "use_kernels", "streaming"):
        if not settings[name]:
            del settings[name]
    settings["trainer"] = {
        key: value for key, value in recipe.trainer.items() if key not in CHANGEABLE_SETTINGS
    }
    return {
        "model": _model_fingerprint(recipe.model),
        "recipe": _hash(settings),
        "training file": _hash(rows),
        "number of processes": str(processes),
        "starting adapter": _model_fingerprint(str(adapter)) if adapter else "",
    }


class Checkpoints:
    """A folder of checkpoints.

    Args:
        folder: folder of the checkpoints; it is created with the first one.
        made_from: fingerprint of this run (`fingerprint`).
        resuming_command: how to continue the run, in words.
    """

    def __init__(
        self, folder: Path, made_from: dict[str, str], resuming_command: str = RESUMING_COMMAND
    ) -> None:
        self.folder = folder
        self.resuming_command = resuming_command
        self._made_from = made_from

    def path_of(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, whether or not it exists."""
        return self.folder / f"{PREFIX}{step}"

    def latest(self) -> Path | None:
        """Return the complete checkpoint of the latest step, of whichever run."""
        complete = [path for path in self._all() if is_complete(path)]
        return max(complete, key=step_of, default=None)

    def latest_of_this_run(self) -> Path | None:
        """Return the checkpoint from which this run resumes, or None if no checkpoint exists.

        Raises:
            TrainError: the latest checkpoint is of a run with another model, recipe, training file or
                number of processes.
        """
        checkpoint = self.latest()
        if checkpoint is not None and (part := self.differing_part(checkpoint)):
            fix = "resume with the same one, or delete that folder to start again"
            raise TrainError(f"the checkpoint was made with another {part}", checkpoint, fix)
        return checkpoint

    def differing_part(self, checkpoint: Path) -> str | None:
        """Return what differs between this run and that of a complete checkpoint, or None.

        It is the model, the recipe, the training file or the number of processes.
        """
        made_from = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["made_from"]
        return next(
            (p for p, value in self._made_from.items() if made_from.get(p, "") != value), None
        )

    def refuse_foreign(self) -> None:
        """Check that train.py wrote all checkpoints in the folder, since a run replaces them.

        Raises:
            TrainError: another program wrote a checkpoint.
        """
        for path in self._all():
            if not (path / STARTED).exists() and not (path / MARKER).exists():
                problem = "the folder has a checkpoint that train.py did not write"
                raise TrainError(problem, path, "move it, or give another --checkpoint-dir")

    def begin(self, step: int) -> None:
        """Make the folder of a step's checkpoint, in place of one of an earlier run."""
        path = self.path_of(step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        (path / STARTED).touch()

    def remove_incomplete(self) -> None:
        """Remove the checkpoints that were interrupted while they were written."""
        for path in self._all():
            if not is_complete(path):
                shutil.rmtree(path, ignore_errors=True)

    def mark_complete(self, step: int, sizes: Sequence[dict[str, int]] = ()) -> None:
        """Mark a step's checkpoint as complete, and remove those of later steps (of other runs).

        Args:
            step: number of the step.
            sizes: for each process, the files' sizes in bytes as it sees them (`file_sizes`). The largest
                size counts: the file of another node may be incomplete on this node's mount for a while.
        """
        path = self.path_of(step)
        merged: dict[str, int] = {}
        for seen in sizes or [file_sizes(path)]:
            merged.update({name: max(size, merged.get(name, 0)) for name, size in seen.items()})
        content = json.dumps({"made_from": self._made_from, "sizes": merged}, indent=2)
        with (path / MARKER).open("w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        for checkpoint in self._all():
            if step_of(checkpoint) > step:
                shutil.rmtree(checkpoint, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove all checkpoints, and the folder if it is empty then."""
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
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix(PREFIX))


def write_failure_reason(error: Exception) -> str | None:
    """Return why a file could not be written, or None if the error has another cause."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    is_full = any(text in str(error).lower() for text in DISK_FULL_TEXTS)
    return "the disk is full" if is_full else None


def is_complete(path: Path) -> bool:
    """Return whether a checkpoint has its marker, and its files have the sizes in the marker."""
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
        return isinstance(marker["made_from"], dict) and marker["sizes"] == file_sizes(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def file_sizes(path: Path) -> dict[str, int]:
    """Return the sizes in bytes of the files of a checkpoint, without the marker."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != MARKER)
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in sorted(files)}


def _model_fingerprint(model: str) -> str:
    """Return a hub id unchanged, and for a folder a hash of its content, since it may have moved."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = {name: folder / name for name in MODEL_FILES if (folder / name).is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    has_safetensors = any(folder.glob("*.safetensors"))
    weights = base_identity(model)["base_sha256"] if has_safetensors else file_sizes(folder)
    return _hash([weights, hashes])


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
