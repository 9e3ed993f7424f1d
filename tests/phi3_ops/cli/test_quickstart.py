"""`phi3 quickstart`: its options become `QuickstartOptions`, and `--remove` prints what it removed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from phi3_ops import paths, quickstart
from phi3_ops.cli import main
from phi3_ops.quickstart import QuickstartOptions


@pytest.fixture
def runs(monkeypatch):
    """The options of each call of `run_quickstart`, which does nothing."""
    calls = []
    monkeypatch.setattr(
        quickstart, "run_quickstart", lambda options, console: calls.append(options)
    )
    return calls


def test_the_defaults(runs):
    assert main(["quickstart"]) == 0
    assert runs == [QuickstartOptions(workdir=paths.WORKDIR, source=paths.SAMPLE_DATA)]


def test_the_summary_as_json(monkeypatch, capsys):
    def run_quickstart(options, console):
        console.print("[1/8] Prepare the data")
        return SimpleNamespace(to_json=lambda: {"model": "m"})

    monkeypatch.setattr(quickstart, "run_quickstart", run_quickstart)
    assert main(["quickstart", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"model": "m"}
    assert "[1/8]" in output.err


def test_remove_has_no_json(capsys):
    assert main(["quickstart", "--remove", "--json"]) == 1
    assert "--json has no effect with --remove" in capsys.readouterr().err


def test_own_data_has_a_folder_of_its_own(runs):
    words = ["--data", "in/mine.csv", "--prompt-column", "Frage", "--answer-column", "Text"]
    assert main(["quickstart", *words]) == 0
    assert runs[0].workdir == Path(".phi3-mine") and runs[0].columns[:2] == ("Frage", "Text")


def test_unclear_columns_end_with_the_finished_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my data.csv").write_text("Nr,Thema,Text\n1,a,b\n2,c,d\n", encoding="utf-8")
    assert main(["quickstart", "--data", "my data.csv", "--model", "tiny"]) == 1
    error = capsys.readouterr().err
    assert (
        "my data.csv has the columns Nr, Thema, Text; which are the question and the answer"
        in error
    )
    line = "phi3 quickstart --data 'my data.csv' --model tiny --prompt-column Thema --answer-column Text"
    assert f"Run `{line}`, or name other columns." in error
    assert not Path(".phi3-my-data").exists()


def test_every_option(runs):
    words = [
        "--workdir",
        "w",
        "--data",
        "d.jsonl",
        "--model",
        "m",
        "--recipe",
        "r",
        "--questions",
        "5",
        "--epochs",
        "2",
    ]
    words += ["--seed", "3", "--port", "4000", "--replace-connection", "--stop-endpoint"]
    assert main(["quickstart", *words]) == 0
    assert runs == [
        QuickstartOptions(
            workdir=Path("w"),
            source=Path("d.jsonl"),
            seed=3,
            model="m",
            recipe="r",
            questions=5,
            epochs=2,
            port=4000,
            replace_connection=True,
            keep_endpoint=False,
        )
    ]


def test_remove_prints_what_it_removed(runs, monkeypatch, capsys):
    removed = ["deleted a", "deleted b"]
    monkeypatch.setattr(quickstart, "remove_quickstart", lambda workdir, confirm: removed)
    assert main(["quickstart", "--remove"]) == 0
    assert capsys.readouterr().out == "deleted a\ndeleted b\n" and runs == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "0"), "argument --epochs: 0 is"),
        (("--questions", "0"), "argument --questions: 0 is"),
        (("--seed", "x"), "argument --seed: x is not an integer"),
        (("--port", "70000"), "argument --port: 70000 is"),
    ],
)
def test_a_wrong_number_is_named(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["quickstart", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
