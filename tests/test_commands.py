"""docs/commands.md: every command of the documentation exists, and a test runs it."""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from documented_commands import ALL, SECTIONS, documented, matching
from pages import check_part, table
from phi3_ops import training
from phi3_ops.cli import COMMANDS, _parser, main

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A command in a sentence, or on a line of a block.
IN_TEXTS = re.compile(r"(?:(?<=`)|(?<=\n))((?:(?:PHI3|PF)_\w+=\S+ )*phi3 [^`\n#|]+)")
VARIABLES = re.compile(r"^((PHI3|PF)_\w+=\S+ )+")


@functools.cache
def runners_of_commands() -> dict[str, list[str]]:
    """Return command -> the tests that run it, from the decorators `documented`."""
    tests: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "@documented(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "documented":
                    test = f"{file.relative_to(TESTS).as_posix()}::{node.name}"
                    for name in map(ast.literal_eval, mark.args):
                        assert matching(name), f"{test}: {name} is not a documented command"
                        for command in matching(name):
                            tests.setdefault(command, []).append(test)
    return tests


def test_a_test_runs_each_command():
    assert set(ALL) == set(runners_of_commands())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tables(section):
    tests = runners_of_commands()
    rows = [
        [
            row.step,
            f"`{row.command}`",
            ", ".join(f"`{test}`" for test in tests.get(row.command, [])),
        ]
        for row in SECTIONS[section]
    ]
    check_part("commands.md", section, table(["step", "command", "test that runs it"], rows))


def test_the_arguments_are_valid():
    for command in ALL:
        program, *words = shlex.split(VARIABLES.sub("", command))
        if program == "phi3":
            _parser(words[0]).parse_args(words)


def all_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of a parser and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from all_options(subparser)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_in_its_texts_exist(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in IN_TEXTS.findall(text):
        name, *words = VARIABLES.sub("", command).removeprefix("phi3 ").split()
        if name in COMMANDS:
            options = {word.strip("`").partition("=")[0] for word in words if word.startswith("--")}
            assert options <= {"--", *all_options(_parser(name))}, command
        else:
            assert name in ("--help", "--version", "COMMAND", "X"), command


@documented("phi3 finetune --local --model phi-3.5-mini --recipe lora")
def test_a_model_of_the_hub(monkeypatch, tmp_path, capsys):
    """The training itself needs a GPU and the hub."""
    requests = []

    def finetune(*files, **options):
        requests.append((files, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "finetune_locally", finetune)
    monkeypatch.chdir(tmp_path)
    words = shlex.split("finetune --local --model phi-3.5-mini --recipe lora")
    assert main(words) == 130
    ((_, options),) = requests
    assert (options["model"], options["recipe"]) == ("phi-3.5-mini", "lora")
