"""What users expect of every command: JSON for a table, no colours in a pipe, and what comes next."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from phi3_ops.cli import COMMANDS, _parser, main
from phi3_ops.terminal import console

COMMANDS_PAGE = Path(__file__).resolve().parents[3] / "docs" / "commands.md"
# How the modules of the commands print tables.
PRINTS_TABLE = re.compile(
    r"print_table\(|_table\(|print_comparison\(|print_data_report\(|_print_report\("
)
TABLE_ELSEWHERE = ("quickstart", "run")  # commands whose table another module prints
# Commands after which no other command usually comes, and why.
NO_NEXT = {
    "doctor": "each check names its own command",
    "completion": "its output is a script",
    "models": "a list",
    "connections": "a list",
    "feedback": "a list",
    "runs": "a list",
    "quota": "a list",
    "status": "a list",
    "down": "the end",
    "serve": "runs until Ctrl-C",
    "quickstart": "its results end with the address to open",
    "export": "the README.md that it names says how to run the model",
}


def source(command):
    return inspect.getsource(importlib.import_module(f"phi3_ops.cli.{command}"))


def options(parser):
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from options(subparser)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_is_also_json(command):
    if not PRINTS_TABLE.search(source(command)) and command not in TABLE_ELSEWHERE:
        return
    parser = next(
        action.choices[command]
        for action in _parser(command)._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    page = COMMANDS_PAGE.read_text(encoding="utf-8")
    assert "--json" in options(parser)
    assert re.search(rf"phi3 {command}( [\w-]+)? --json", page), "docs/commands.md lacks it"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_last_line_says_what_is_next(command):
    text = source(command)
    has_next = "_next_step import" in text or '"next: ' in text
    assert has_next != (command in NO_NEXT)


@pytest.mark.parametrize("words", [["flow", "list"], ["models"], ["runs"], ["connections"]])
def test_no_colours_in_a_pipe(words, capsys):
    assert main(words) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_no_colours_with_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color
    monkeypatch.delenv("NO_COLOR")
    assert not console().no_color


def test_data_as_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "--json"]) == 0
    output = capsys.readouterr()
    manifest = json.loads(output.out)
    assert manifest == json.loads((tmp_path / ".phi3/data/manifest.json").read_text())
