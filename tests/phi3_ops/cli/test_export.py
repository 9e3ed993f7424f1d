"""`phi3 export`: arguments in, lines and a table out."""

from __future__ import annotations

import json

import pytest

from documented_commands import documented
from phi3_ops import take_home
from phi3_ops.cli import export, main
from phi3_ops.take_home import formats
from phi3_ops.take_home.card import ExportedFile
from phi3_ops.take_home.evaluation import EvaluatedModel
from phi3_ops.take_home.export import ExportedModel
from phi3_tools.evaluation import Mean


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The exports that were asked for; nothing is written."""
    calls = []
    monkeypatch.chdir(tmp_path)

    def export(model, target, quantizations, folder, *, name, system, notify):
        calls.append((model, target, quantizations, str(folder), name, system))
        notify("writing")
        file = ExportedFile("m-Q8_0.gguf", "q8_0", 2_000_000, 8.5, {"Q8_0": 3}, "abc")
        return ExportedModel("m", folder, (file,), ("It is smaller.",))

    monkeypatch.setattr(take_home, "export_model", export)
    return calls


@documented("phi3 export --to gguf", "phi3 export --to ollama", "phi3 export --to foundry-local")
@pytest.mark.parametrize("target", ["gguf", "ollama", "foundry-local"])
def test_the_defaults(calls, capsys, target):
    assert main(["export", "--to", target]) == 0
    folder = f".phi3/take-home/{target}"
    assert calls == [(".phi3/model", target, (), folder, None, None)]
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {folder}/m-Q8_0.gguf (2 MB)",
        "note: It is smaller.",
        f"{folder}/README.md says how to run it",
    ]


def test_all_arguments(calls):
    words = "export smollm2 --to ollama --quant Q8_0,q4_k_m --out x --name Mine --system Hi"
    assert main(words.split()) == 0
    assert calls == [("smollm2", "ollama", ("q8_0", "q4_k_m"), "x", "Mine", "Hi")]


def stub_evaluation(monkeypatch):
    """Let the evaluation return fixed scores, and return the list of its calls."""
    evaluations = []

    def evaluate(exported, model, questions, *, base, notify, on_progress):
        evaluations.append((model, base, str(questions)))
        exact, f1 = {"trained": Mean(2, 0.5, 0)}, {"trained": Mean(2, 0.75, 0)}
        return [EvaluatedModel("q8_0", 2_000_000, exact, f1, 1, ("a", "b"))]

    monkeypatch.setattr(take_home, "check_evaluation_of_export", lambda target, questions: None)
    monkeypatch.setattr(take_home, "evaluate_export", evaluate)
    return evaluations


@documented("phi3 export --to gguf --quant q8_0,q4_k_m --evaluate --base smollm2")
def test_the_table_of_an_evaluation(calls, capsys, monkeypatch):
    evaluations = stub_evaluation(monkeypatch)
    words = "export --to gguf --quant q8_0,q4_k_m --evaluate --base smollm2"
    assert main(words.split()) == 0
    header, row, runs = capsys.readouterr().out.splitlines()[-3:]
    assert header.split("  ")[0] == "model" and "exact match, trained" in header
    assert row.split() == ["q8_0", "2", "50.0%", "75.0%", "1"]
    assert runs == "q8_0: runs a and b"
    assert evaluations == [(".phi3/model", "smollm2", ".phi3/data/questions.jsonl")]


def test_an_evaluation_as_json(calls, capsys, monkeypatch):
    stub_evaluation(monkeypatch)
    assert main(["export", "--to", "gguf", "--evaluate", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (item,) = document.pop("items")
    assert item["exact_match"]["trained"] == {"n": 2, "mean": 0.5, "stderr": 0}
    assert (item["size"], item["failed"], item["runs"]) == (2_000_000, 1, ["a", "b"])
    assert document["folder"] == ".phi3/take-home/gguf"
    assert document["files"][0]["name"] == "m-Q8_0.gguf"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to gguf --base smollm2", "--base has no effect without --evaluate"),
        ("--to gguf --system Hi", "--system has no effect with --to gguf"),
        ("--to gguf --evaluate nothing.jsonl", "nothing.jsonl does not exist"),
        ("--to onnx --evaluate nothing.jsonl", "cannot run models of the format onnx"),
    ],
)
def test_what_has_no_effect(calls, capsys, words, message):
    assert main(["export", *words.split()]) == 1
    assert message in capsys.readouterr().err
    assert calls == []


def test_the_formats_are_those_of_the_exporter():
    assert tuple(formats.FORMATS) == export.FORMATS


def test_an_empty_name(calls, capsys):
    with pytest.raises(SystemExit):
        main(["export", "--to", "gguf", "--quant", "q8_0,"])
    assert "use names separated by commas, for example q8_0,q4_k_m" in capsys.readouterr().err
