"""The help that is grouped by task, and the suggestions for typing errors."""

from __future__ import annotations

import shlex

import pytest

from phi3_ops.cli import COMMANDS, GROUPS, MEANT, _parser, main


def usage_error(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_phi3_alone_lists_the_commands_by_task(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.removesuffix(":") in GROUPS] == [
        f"{task}:" for task in GROUPS
    ]
    for name, text in COMMANDS.items():
        assert f"  {name:{max(map(len, COMMANDS))}}  {text}" in lines


def test_phi3_flow_alone_lists_its_subcommands(capsys):
    assert main(["flow"]) == 0
    output = capsys.readouterr().out
    assert "lock " in output and "promote " in output


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["quickstrat"], "'quickstrat' is not a valid command; did you mean quickstart?"),
        (["flow", "lokc"], "'lokc' is not a valid subcommand; did you mean lock?"),
        (["data", "--sorce=x"], "unrecognized arguments: --sorce=x; did you mean --source?"),
        (["flow", "check", "qa", "--locl"], "--locl; did you mean --local?"),
        (["connect", "--contract", "chta"], "'chta' is not a valid --contract; did you mean chat?"),
        (["export", "--to", "gguf", "--model", "x"], "unrecognized arguments: --model"),
        (["lock", "chat"], "'lock' is not a command; did you mean phi3 flow lock?"),
        (["train"], "'train' is not a command; did you mean phi3 finetune?"),
    ],
)
def test_a_typing_error_gets_a_suggestion(words, suggestion, capsys):
    assert usage_error(words, capsys).endswith(suggestion)


def test_without_a_near_word_all_choices_are_listed(capsys):
    line = usage_error(["xyzzy"], capsys)
    assert line.endswith(f"'xyzzy' is not a valid command; use {', '.join(COMMANDS)}")


@pytest.mark.parametrize("words", [["data", "--nonsense"], ["flow", "lock", "--nonsense"]])
def test_the_usage_is_that_of_the_subcommand(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert f"usage: phi3 {' '.join(words[:-1])} " in capsys.readouterr().err


def test_an_example_can_be_copied_and_comes_after_the_options_of_this_machine(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    output = capsys.readouterr().out
    assert output.index("--data FILE") < output.index("on Azure:") < output.index("example:\n")
    example = output.partition("example:\n")[2].replace("\\\n", " ")
    _, *words = shlex.split(example)
    _parser("run").parse_args(words)


@pytest.mark.parametrize("meant", MEANT.values())
def test_what_a_word_means_is_a_command(meant):
    name, *rest = meant.split()
    if name.startswith("-"):
        return
    assert name in COMMANDS
    parser = _parser(name)
    assert not rest or rest[0] in _help_of(parser, name)


def _help_of(parser, name):
    (subparsers,) = [action for action in parser._actions if action.dest == "command"]
    return subparsers.choices[name].format_help()


def test_options_are_not_abbreviated(capsys):
    assert "unrecognized arguments: --las" in usage_error(["runs", "--las", "3"], capsys)


def test_a_word_is_not_corrected_to_an_option(capsys):
    assert usage_error(["doctor", "json"], capsys).endswith("unrecognized arguments: json")


@pytest.mark.parametrize("command", ["connections", "models", "runs"])
def test_list_is_accepted_by_commands_that_list(command, capsys):
    assert main([command, "list"]) == 0
