"""The last line of a command names the command that comes next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.cli import _next_step, _parser

WORKDIR = paths.WORKDIR


@pytest.mark.parametrize(
    ("print_it", "line"),
    [
        (
            lambda: _next_step.after_data(WORKDIR / "data"),
            "next: phi3 finetune --local --model smollm2",
        ),
        (
            lambda: _next_step.after_data(Path("my data")),
            "next: phi3 finetune --local --model smollm2 --train-file 'my data/train.jsonl' "
            "--eval-file 'my data/test.jsonl'",
        ),
        (
            lambda: _next_step.after_data(Path("pairs"), are_preferences=True),
            "next: phi3 finetune --local --recipe smollm2-dpo --train-file pairs/train.jsonl "
            "--eval-file pairs/test.jsonl",
        ),
        (
            lambda: _next_step.after_training(WORKDIR / "model"),
            "next: phi3 endpoint --model .phi3/model/model",
        ),
        (
            lambda: _next_step.after_job("phi3-1", has_ended=True),
            "next: phi3 deploy --job phi3-1",
        ),
        (
            lambda: _next_step.after_job("phi3-1", has_ended=False),
            "next, when the job has ended: phi3 deploy --job phi3-1",
        ),
        (
            lambda: _next_step.after_connection("phi3", when="in another terminal"),
            "next, in another terminal: phi3 serve",
        ),
        (
            lambda: _next_step.after_connection("mine"),
            "next: phi3 serve --connection mine",
        ),
        (
            lambda: _next_step.after_run("tuned-2", failed=3, earlier="base-1"),
            "next: phi3 run --resume tuned-2",
        ),
        (
            lambda: _next_step.after_run("tuned-2", failed=0, earlier="base-1"),
            "next: phi3 compare base-1 tuned-2",
        ),
        (
            lambda: _next_step.after_run("base-1", failed=0, earlier=None),
            "next, after a run of another model: phi3 compare base-1 OTHER",
        ),
    ],
)
def test_the_line_is_a_command_that_exists(print_it, line, capsys):
    print_it()
    assert capsys.readouterr().out == f"{line}\n"
    words = shlex.split(line.partition(": ")[2])
    assert words[0] == "phi3"
    _parser(words[1]).parse_args(words[1:])
