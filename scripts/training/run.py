"""Prepare a run: check its inputs and find its checkpoint, before the slow imports start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import hub
import mixture
import ownership
import tool_rows
import trackers
from checkpoints import Checkpoints, fingerprint
from console import print_line
from inputs import (
    Recipe,
    Row,
    TrainError,
    check_model,
    check_output,
    iterate_rows,
    parse_chat,
    read_recipe,
    read_rows,
)
from mixture import MixedFile
from options import CommandLine, override
from outputs import RESULT_NAMES
from preferences import as_chat, parse_preference
from recipe_checks import DPO
from row_stream import RowStream, scan
from small_data import lengthen
from start import check_adapter, find_start


@dataclass(frozen=True)
class Inputs:
    """The checked inputs.

    Attributes:
        recipe: recipe with the command line's changes.
        train_rows, eval_rows, general_rows: rows of each file; a sample of the training rows if they
            are streamed.
        adapter: folder of the adapter to start from, or None.
        mixed_files: counts of each training file if there are several.
        notes: lines about the inputs, which are printed when the training begins.
        stream: the training rows if the recipe has `streaming`, or None.
    """

    recipe: Recipe
    train_rows: list[Row]
    eval_rows: list[Row]
    general_rows: list[Row]
    adapter: Path | None = None
    mixed_files: Sequence[MixedFile] = ()
    notes: Sequence[str] = ()
    stream: RowStream | None = None

    @property
    def train_row_count(self) -> int:
        """Number of rows in the training files."""
        return self.stream.rows if self.stream else len(self.train_rows)

    @property
    def train_chats(self) -> list[Row]:
        """The training rows as conversations; a preference has its chosen answer."""
        return [as_chat(row) for row in self.train_rows]

    @property
    def eval_chats(self) -> list[Row]:
        """The evaluation rows as conversations; a preference has its chosen answer."""
        return [as_chat(row) for row in self.eval_rows]


@dataclass(frozen=True)
class Run:
    """Everything about a run that is known before the libraries are imported.

    Attributes:
        started: time.monotonic() at the start.
        options: command line.
        inputs: checked inputs.
        process: this process among those that train together.
        checkpoints: checkpoints of this run.
        resume_from: checkpoint to resume from, or None.
    """

    started: float
    options: CommandLine
    inputs: Inputs
    process: distributed.ProcessInfo
    checkpoints: Checkpoints
    resume_from: Path | None


def read_inputs(options: CommandLine) -> Inputs:
    """Read and check the recipe and the rows.

    Raises:
        TrainError: one of them is wrong.
    """
    recipe = override(read_recipe(options.recipe), options)
    check_model(recipe.model)
    tool_format = tool_rows.model_format(recipe.model)
    parse = parse_preference if recipe.method == DPO else parse_chat

    def read(file: Path, parse: Callable[[Any, str, str], Row] = parse) -> list[Row]:
        return read_rows(file, options.rows, tool_format, parse)

    paths, stream = options.train_files, None
    if recipe.streaming is None:
        train_rows, mixed_files = mixture.mix(
            paths, [read(path) for path in paths], recipe.mixture, recipe.seed, options.recipe
        )
    else:
        limits = {"limit": options.rows, "tool_format": tool_format}
        stream = scan(paths, recipe, options.recipe, partial(iterate_rows, **limits))
        train_rows, mixed_files = stream.sample, list(stream.files) if len(paths) > 1 else []
    return Inputs(
        recipe=recipe,
        train_rows=train_rows,
        eval_rows=read(options.eval_file),
        general_rows=read(options.general_file, parse_chat) if options.general_file else [],
        adapter=find_start(options).adapter,
        mixed_files=mixed_files,
        stream=stream,
    )


def prepare(options: CommandLine) -> Run:
    """Check the inputs and the output folder, and find the checkpoint to resume from.

    Raises:
        TrainError: an input is wrong, a folder has files that train.py did not write, or the
            checkpoint is of another run.
    """
    started = time.monotonic()
    inputs = read_inputs(options)
    hub.check_push(inputs.recipe, options.recipe)
    trackers.check_installed(inputs.recipe, options.recipe)
    process = distributed.current_process()
    if inputs.general_rows and inputs.recipe.fsdp is not None and process.count > 1:
        fix = "leave it out, or use one process"
        raise TrainError("a sharded model cannot be asked", "--general-file", fix)
    if inputs.adapter:
        check_adapter(inputs.adapter, inputs.recipe)
    stream = inputs.stream
    rows = stream.digest if stream else inputs.train_rows
    made_from = fingerprint(inputs.recipe, rows, process.count, inputs.adapter)
    recipe, note = lengthen(inputs.recipe, inputs.train_rows, process.count, options.epochs)
    lines = [stream.describe()] if stream else mixture.describe(inputs.mixed_files)
    notes = [*lines, *filter(None, [note])]
    inputs = replace(inputs, recipe=recipe, notes=notes)
    checkpoints = Checkpoints(options.checkpoint_dir, made_from, options.resuming_command)
    ownership.refuse_foreign_files(options.output_dir, RESULT_NAMES)
    checkpoints.refuse_foreign()
    check_output(options.output_dir)
    if process.is_main:
        checkpoints.remove_incomplete()
    resume_from = find_checkpoint(checkpoints, options.resume, options.resume_if_same)
    return Run(started, options, inputs, process, checkpoints, resume_from)


def find_checkpoint(
    checkpoints: Checkpoints, resume: bool, resume_if_same: bool = False
) -> Path | None:
    """Return the checkpoint to resume from, or None to start from the base; print which.

    Args:
        checkpoints: the run's checkpoints.
        resume: whether to resume.
        resume_if_same: whether to resume, unless the checkpoint is of another run.

    Raises:
        TrainError: the checkpoint is of another run, and `resume` is set.
    """
    latest = checkpoints.latest()
    if resume_if_same and latest:
        if part := checkpoints.differing_part(latest):
            print_line(f"starting from the base model: {latest} was made with another {part}")
            return None
        resume = True
    if not resume:
        if latest and not resume_if_same:
            print_line(
                f"starting from the base model; --resume would continue from {latest}, "
                "which the next checkpoint replaces"
            )
        return None
    checkpoint = checkpoints.latest_of_this_run()
    if checkpoint is None:
        print_line(f"no checkpoint in {checkpoints.folder}: starting from the base model")
    else:
        print_line(f"resuming from {checkpoint}")
    return checkpoint
