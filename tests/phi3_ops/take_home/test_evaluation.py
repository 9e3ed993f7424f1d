"""The evaluation of an export: each model is served, connected, scored, and forgotten."""

from __future__ import annotations

import json
import types
from contextlib import contextmanager

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import evaluation
from phi3_ops.take_home.card import ExportedFile
from phi3_ops.take_home.evaluation import check_evaluation_of_export, evaluate_export
from phi3_ops.take_home.export import ExportedModel
from phi3_ops.take_home.llama_server import LlamaServer

ROWS = [
    {"question": "a", "ground_truth": "b", "kind": "trained"},
    {"question": "c", "ground_truth": "d"},
]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


@pytest.fixture
def events(monkeypatch):
    """What was started, connected and asked, in order; the scores are made up."""
    events = []

    def start(folder, workdir, name, *, key):
        events.append(f"start {name}")
        return types.SimpleNamespace(url="http://127.0.0.1:1/score")

    @contextmanager
    def serve(file, *, slots, tokens):
        events.append(f"serve {file.name}")
        yield LlamaServer("http://127.0.0.1:2", "key")
        events.append(f"end {file.name}")

    def ask(data, *, title, connection, max_new_tokens, on_progress):
        events.append(f"ask {connection[:-7]}")
        assert max_new_tokens == 32
        answers = types.SimpleNamespace(name="answers", failed=1)
        scores = {0: {"exact_match": 1.0, "token_f1": 0.5}}
        return answers, types.SimpleNamespace(name="scores", answers=scores)

    monkeypatch.setattr(evaluation, "start_endpoint", start)
    monkeypatch.setattr(
        evaluation, "stop_endpoint", lambda workdir, name: events.append(f"stop {name}")
    )
    monkeypatch.setattr(evaluation, "llama_server", serve)
    monkeypatch.setattr(evaluation, "ask_and_score", ask)
    monkeypatch.setattr(
        evaluation, "save_connection", lambda name, fields, key: events.append(fields["endpoint"])
    )
    monkeypatch.setattr(evaluation, "delete_connection", lambda name: events.append("deleted"))
    return events


def test_all_models(events, questions, tiny_model_dir, tmp_path):
    file = ExportedFile("m-Q8_0.gguf", "q8_0", 1000, 8.5, {}, "")
    exported = ExportedModel("m", tmp_path, (file,), ())
    tiny = str(tiny_model_dir)
    base, tuned, quantized = evaluate_export(exported, tiny, questions, base=tiny)
    assert events == [
        "start phi3-export-base", "http://127.0.0.1:1/score", "ask phi3-export-base", "deleted",
        "stop phi3-export-base",
        "start phi3-export-model", "http://127.0.0.1:1/score", "ask phi3-export-model", "deleted",
        "stop phi3-export-model",
        "serve m-Q8_0.gguf", "http://127.0.0.1:2/v1", "ask phi3-export-m-q8_0", "deleted",
        "end m-Q8_0.gguf",
    ]  # fmt: skip
    assert (quantized.name, quantized.size, quantized.failed) == ("q8_0", 1000, 1)
    assert quantized.exact_match["trained"].mean == 1.0 and quantized.exact_match["all"].mean == 0.0
    assert tuned.size == base.size == (tiny_model_dir / "model.safetensors").stat().st_size


def test_what_cannot_be_evaluated(questions, tmp_path):
    check_evaluation_of_export("gguf", questions)
    with pytest.raises(OpsError, match="cannot run models of the format onnx"):
        check_evaluation_of_export("onnx", questions)
    with pytest.raises(OpsError, match="missing.jsonl does not exist. Run `phi3 data`"):
        check_evaluation_of_export("gguf", tmp_path / "missing.jsonl")
    questions.write_text('{"question": "a"}\n')
    with pytest.raises(OpsError, match="has no questions, or a line lacks a field"):
        check_evaluation_of_export("ollama", questions)
