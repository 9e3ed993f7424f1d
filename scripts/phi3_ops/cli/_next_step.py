"""The last line of a command: the command that usually comes next, with the real names filled in."""

from __future__ import annotations

import shlex
from pathlib import Path

from .. import paths
from ..terminal import print_text


def print_next(*words: str | Path, when: str = "") -> None:
    """Print the command that usually comes next.

    Args:
        words: the words of the command.
        when: when or where to run it, for example `in another terminal`.
    """
    print_text(f"next{when and ', '}{when}: {shlex.join(map(str, words))}")


def after_data(out: Path, *, are_preferences: bool = False) -> None:
    """Print how to train on the files that `phi3 data` has written to a folder.

    Args:
        out: the folder.
        are_preferences: whether the rows are preferences, which need a recipe with the method dpo.
    """
    files: list[str | Path] = []
    if out != paths.WORKDIR / "data":
        files = ["--train-file", out / "train.jsonl", "--eval-file", out / "test.jsonl"]
    model = ("--recipe", "smollm2-dpo") if are_preferences else ("--model", "smollm2")
    print_next("phi3", "finetune", "--local", *model, *files)


def after_training(output_dir: Path) -> None:
    """Print how to serve the model that `phi3 finetune --local` has written to a folder.

    Adapters that are not merged cannot be served here.
    """
    if not (output_dir / "model").is_dir() and (output_dir / "adapter").is_dir():
        print_text(f"the adapter is in {output_dir / 'adapter'}")
        return
    print_next("phi3", "endpoint", "--model", output_dir / "model")


def after_job(name: str, *, has_ended: bool) -> None:
    """Print how to deploy the model of a training job."""
    when = "" if has_ended else "when the job has ended"
    print_next("phi3", "deploy", "--job", name, when=when)


def after_connection(name: str, *, when: str = "") -> None:
    """Print how to chat through a connection."""
    print_next("phi3", "serve", *_option("--connection", name, "phi3"), when=when)


def after_run(name: str, *, failed: int, earlier: str | None) -> None:
    """Print how to complete a run, or how to compare it.

    Args:
        name: name of the run.
        failed: number of failed lines.
        earlier: an earlier run of the same flow over the same data, or None.
    """
    if failed:
        print_next("phi3", "run", "--resume", name)
    elif earlier:
        print_next("phi3", "compare", earlier, name)
    else:
        print_next("phi3", "compare", name, "OTHER", when="after a run of another model")


def _option(option: str, value: str, default: str) -> list[str]:
    """Return an option as words, or nothing if the value is the default."""
    return [] if value == default else [option, value]
