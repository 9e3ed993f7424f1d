"""One rule of names, applied wherever a name comes from outside."""

from __future__ import annotations

import argparse
import importlib

import pytest

from phi3_ops import cli
from phi3_ops.errors import OpsError
from phi3_ops.names import (
    LONGEST,
    is_name,
    name_argument,
    require_file_name,
    require_inside,
    require_name,
    safe_name,
)

NAMES = ["a", "phi3", "Phi-3.5_mini", "0", "_a", "a..b", "x" * LONGEST]
NOT_NAMES = [
    "",
    ".",
    "..",
    "../../../w/x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:",
    ".hidden",
    "-rf",
    "a b",
    "a\n",
    "a\0b",
    "\x1b[2J",
    "ü",
    "٣",
    "\ud800",
    "x" * (LONGEST + 1),
    None,
    3,
]


@pytest.mark.parametrize("text", NAMES)
def test_names_are_accepted(text):
    assert is_name(text)
    assert name_argument(text) == require_name(text, "run") == safe_name(text) == text


@pytest.mark.parametrize("text", NOT_NAMES)
def test_other_texts_are_refused_with_the_name_of_the_field(text):
    assert not is_name(text)
    with pytest.raises(OpsError, match="^name of the run: .* is not a valid name") as error:
        require_name(text, "name of the run")
    assert str(error.value).replace("…", "").isascii() and str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", [text for text in NOT_NAMES if isinstance(text, str)])
def test_any_text_becomes_a_name(text):
    assert is_name(safe_name(text))
    with pytest.raises(
        argparse.ArgumentTypeError, match="is not a valid name; use 1 to 128 letters"
    ):
        name_argument(text)


@pytest.mark.parametrize("text", ["flow.dag.yaml", ".promptflow", "mein Flow ü.txt", "-", "a..b"])
def test_names_of_files(text):
    assert require_file_name(text, "file") == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "/", "/a", "a\\b", "C:", "C:a", "a\n", "\x1b"]
)
def test_paths_are_not_names_of_files(text):
    with pytest.raises(OpsError, match="^a file of the flow: .* is not the name of a file"):
        require_file_name(text, "a file of the flow")


def test_a_path_outside_a_folder_is_refused(tmp_path):
    for path in ("a", "a/b", "a/../b"):
        require_inside(tmp_path / path, tmp_path, "file")
    for path in ("../x", "a/../../x", "/etc/passwd", f"../{tmp_path.name}2/x"):
        with pytest.raises(OpsError, match="^file: .* is outside the folder"):
            require_inside(tmp_path / path, tmp_path, "file")


# Command and options that take a name; an option with `{}` contains it.
NAMED = {
    "connect": ["--name", "--deployment"],
    "deploy": ["--job", "--endpoint"],
    "doctor": ["--connection"],
    "endpoint": ["--name", "--connection"],
    "run": ["--name", "--connection", "--fetch", "--compute"],
    "serve": ["--connection", "--against"],
}
FLOW = [
    ["pull", "{}"],
    ["upload", "{}"],
    ["check", "{}"],
    ["promote", "{}", "--from", "a", "--to", "b"],
    ["promote", "chat", "--from", "{}", "--to", "b"],
    ["promote", "chat", "--from", "a", "--to", "{}"],
]
COMMANDS = [(command, [option, "{}"]) for command, options in NAMED.items() for option in options]


@pytest.mark.finding(
    5,
    "`phi3 run --name ../../x`, and every other option that takes a name",
    "the option refuses everything that is not a name",
)
@pytest.mark.parametrize(
    ("command", "words"), [*COMMANDS, *(("flow", words) for words in FLOW)], ids=str
)
def test_every_option_with_a_name_refuses_paths(command, words, capsys):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"{cli.__name__}.{command}").arguments(parser)
    for text in ("../../../w/x", "..", "\x1b[2J"):
        with pytest.raises(SystemExit) as end:
            parser.parse_args([word.format(text) for word in words])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert "is not a valid name; use 1 to 128 letters" in error and "\x1b" not in error
    parser.parse_args([word.format("phi-3.5_mini") for word in words])
