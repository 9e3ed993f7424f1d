"""`phi3 provision`: the options that it passes on, and its question."""

from __future__ import annotations

import pytest

from offline_cloud import SUBSCRIPTION, write_config
from phi3_ops import azure
from phi3_ops.azure.plan import Plan, Step
from phi3_ops.cli import main


@pytest.fixture
def options(monkeypatch, tmp_path):
    """The options of `Provision`, whose plan has one step."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    calls = []

    class Recorder:
        def __init__(self, cloud, options):
            calls.append(options)

        def plan(self):
            return Plan("provision", [Step("thing", lambda: False, lambda: None)])

    monkeypatch.setattr(azure, "Provision", Recorder)
    return calls


@pytest.mark.parametrize("words", [[], ["--create-group"], ["--contributor"]])
def test_options(options, words):
    assert main(["provision", "--dry-run", *words]) == 0
    (chosen,) = options
    assert chosen.create_group is ("--create-group" in words)
    assert chosen.contributor is ("--contributor" in words)


def test_it_asks_about_region_and_subscription(options, monkeypatch, capsys):
    questions = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "n")
    assert main(["provision"]) == 1
    assert questions == [f"Create this in eastus2, subscription {SUBSCRIPTION}? [y/N] "]
    assert capsys.readouterr().err == "phi3 provision: not confirmed. Nothing was changed.\n"


def test_yes_does_not_ask(options, capsys):
    assert main(["provision", "--yes"]) == 0
    assert "created thing" in capsys.readouterr().out
