"""The lines that train.py prints on standard error."""

from __future__ import annotations

import os
import sys

from checkpoints import Checkpoints, write_failure_reason
from options import CommandLine


def print_line(line: str, from_every_process: bool = False) -> None:
    """Print a line on standard error, by default from the main process only."""
    rank = os.environ.get("RANK", "0")
    if from_every_process or rank == "0":
        process = "" if rank == "0" else f"process {rank}: "
        print(f"train.py: {process}{line}", file=sys.stderr, flush=True)


def resume_hint(options: CommandLine) -> str:
    """Return how to continue a stopped run."""
    latest = Checkpoints(options.checkpoint_dir, {}).latest()
    if latest is None:
        return f"{options.output_dir}: no checkpoint was written yet; run the same command again"
    return f"{latest}: run {options.resuming_command} to continue"


def describe_unexpected(error: Exception, options: CommandLine) -> str:
    """Return one line for an unexpected error, without the error's text, which might quote the data."""
    if type(error).__name__ == "OutOfMemoryError":
        fix = "lower trainer.per_device_train_batch_size or max_length, or use recipes/lora.yaml"
        return f"the accelerator's memory is full, {options.recipe}: {fix}"
    if isinstance(error, ModuleNotFoundError):
        fix = "install the packages in conda.yaml"
        return f"the package {error.name!r} is not installed, {sys.executable}: {fix}"
    if reason := write_failure_reason(error):
        location = getattr(error, "filename", None) or options.output_dir
        fix = f"free some space or correct the path, then run {options.resuming_command}"
        return f"{reason}, {location}: {fix}"
    return f"{type(error).__name__}, {options.recipe}: run again with --verbose for the traceback"
