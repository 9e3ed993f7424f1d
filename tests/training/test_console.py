"""The lines on standard error: who prints them, and what they say about errors."""

import dataclasses
import sys
from pathlib import Path

import console
import options
import pytest
from checkpoints import Checkpoints
from training_run import TINY_RECIPE, arguments


@pytest.fixture
def command_line(tmp_path):
    return options.parse(arguments(Path("rows.jsonl"), tmp_path / "out", TINY_RECIPE), "")


def test_only_the_main_process_prints_unless_asked_otherwise(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    console.print_line("from a single process")
    monkeypatch.setenv("RANK", "3")
    console.print_line("from the main process only")
    console.print_line("from every process", from_every_process=True)
    assert capsys.readouterr().err.splitlines() == [
        "train.py: from a single process",
        "train.py: process 3: from every process",
    ]


def test_a_stopped_run_says_how_to_continue(command_line):
    assert console.resume_hint(command_line).endswith("run the same command again")
    checkpoint = command_line.checkpoint_dir / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    Checkpoints(command_line.checkpoint_dir, {}).mark_complete(5)
    hint = f"{checkpoint}: run the same command with --resume to continue"
    assert console.resume_hint(command_line) == hint
    command_line = dataclasses.replace(command_line, resume_if_same=True)
    hint = f"{checkpoint}: run the same command to continue"
    assert console.resume_hint(command_line) == hint


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's error."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OutOfMemoryError("SECRET"), f"memory is full, {TINY_RECIPE}: lower trainer.per_device"),
        (
            ModuleNotFoundError("SECRET", name="trl"),
            f"the package 'trl' is not installed, {sys.executable}: install the packages in conda",
        ),
        (OSError(28, "No space left", "/data/SECRET"), "no space left, /data/SECRET: free some"),
        (RuntimeError("no space left for SECRET"), "the disk is full, "),
        (RuntimeError("SECRET"), f"RuntimeError, {TINY_RECIPE}: run again with --verbose"),
    ],
    ids=["out of memory", "missing package", "file", "disk", "unknown"],
)
def test_an_unexpected_error_is_one_line_without_its_text(command_line, error, line):
    description = console.describe_unexpected(error, command_line)
    assert line in description
    assert "SECRET" not in description.replace("/data/SECRET", "")
    assert "\n" not in description
