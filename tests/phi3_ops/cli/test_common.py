"""The argument types that subcommands share: they accept values, or refuse them with words."""

from __future__ import annotations

import argparse

import pytest

from phi3_ops.cli import _common


def parse(parse_value, text):
    parser = argparse.ArgumentParser()
    parser.add_argument("--value", type=parse_value)
    return parser.parse_args([f"--value={text}"]).value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("positive_int", "1", 1),
        ("positive_int", "70000", 70000),
        ("positive_number", "0.5", 0.5),
        ("number", "-1.5", -1.5),
        ("integer", "-3", -3),
        ("port", "0", 0),
        ("port", "65535", 65535),
    ],
)
def test_values(name, text, value):
    assert parse(getattr(_common, name), text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("positive_int", "0", "0 is below 1"),
        ("positive_int", "1.5", "1.5 is not an integer"),
        ("positive_int", "many", "many is not an integer"),
        ("positive_number", "0", "0 is not above 0"),
        ("positive_number", "nan", "nan is not above 0"),
        ("positive_number", "1e400", "1e400 is too large"),
        ("positive_number", "many", "many is not a number"),
        ("number", "", " is not a number"),
        ("integer", "2.5", "2.5 is not an integer"),
        ("port", "70000", "70000 is not a port (0 to 65535)"),
        ("port", "-1", "-1 is not a port (0 to 65535)"),
        ("port", "http", "http is not a port (0 to 65535)"),
    ],
)
def test_refusals(name, text, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse(getattr(_common, name), text)
    assert end.value.code == 2
    assert f"argument --value: {message}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("add", "words", "expected"),
    [
        (_common.add_yes, ["--yes"], {"yes": True}),
        (_common.add_dry_run, [], {"dry_run": False}),
        (_common.add_config, [], {"config": None}),
    ],
)
def test_shared_options(add, words, expected):
    parser = argparse.ArgumentParser()
    add(parser)
    assert vars(parser.parse_args(words)) == expected


def test_the_working_folder_has_a_default():
    parser = argparse.ArgumentParser()
    _common.add_workdir(parser)
    assert parser.parse_args([]).workdir.name == ".phi3"
