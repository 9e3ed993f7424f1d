"""The printed table and the commands after a quickstart."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from phi3_ops.quickstart.model_choice import choose_model
from phi3_ops.quickstart.report import print_results
from phi3_ops.quickstart.results import ModelEvaluation
from phi3_ops.quickstart.steps import QuickstartJob, QuickstartOptions
from phi3_tools.evaluation import Mean


def printed(workdir, *models, **state):
    """The lines that are printed after the evaluation of some models."""
    console = Console(file=io.StringIO(), width=200)
    job = QuickstartJob(
        QuickstartOptions(workdir=workdir),
        console,
        choose_model("tiny", None, None),
        seconds={"data": 0.6},
        rows={"trained": 8, "unknown": 0},
        **{"groups": "fact", **state},
    )
    job.questions = [{"kind": "trained", "ground_truth": "A sentence of the data."}] * 3
    for name, share in models:
        means = {"trained": Mean(mean=share, stderr=0.0, n=3)}
        scores = {"exact_match": means, "token_f1": means}
        job.evaluations[name] = ModelEvaluation(f"{name}-run", f"{name}-eval", 3, 0, scores)
    print_results(job)
    return [" ".join(line.split()) for line in console.file.getvalue().strip().splitlines()]


def test_both_models(tmp_path):
    lines = printed(tmp_path, ("base", 0.0), ("tuned", 2 / 3))
    assert "trained phrasings 3 of 8 0.0% 66.7% 0.0% 66.7%" in lines
    assert "compare phi3 compare base-run tuned-run --by kind" in lines
    assert "runs phi3 runs --show tuned-run" in lines
    assert "time 1 s (data 1)" in lines
    assert "answers greedy, at most 32 tokens from either model" in lines
    assert f"remove phi3 quickstart --remove --workdir {tmp_path}" in lines
    assert not any(line.startswith(("memory", "general")) for line in lines)


def test_rows_of_the_users_data_are_not_called_phrasings(tmp_path):
    lines = printed(tmp_path, ("tuned", 1.0), groups="prompt", notes=["12 rows are few"])
    assert "trained rows 3 of 8 – 100.0% – 100.0%" in lines
    assert "note 12 rows are few" in lines


def test_the_last_line_says_what_to_open(tmp_path):
    both = ("base", 0.0), ("tuned", 1.0)
    page = "http://127.0.0.1:9/"
    alone = f"open {page} to chat with the fine-tuned model"
    assert printed(tmp_path, *both, page=page)[-1] == f"{alone}, beside the base model"
    assert printed(tmp_path, both[1], page=page)[-1] == alone
    endpoint = f"phi3 endpoint --model {tmp_path / 'model' / 'model'}"
    last = f"next {endpoint}, and in another terminal phi3 serve, to chat with the model"
    assert printed(tmp_path, *both)[-1] == last


def test_memory_and_what_the_model_forgot(tmp_path):
    training = SimpleNamespace(general_rows=40, base_general_loss=1.5, general_loss=1.75)
    lines = printed(tmp_path, ("tuned", 1.0), peak_memory=3_140_000_000, training=training)
    assert "memory 3.1 GB at most" in lines
    change = "1.50 before the training, 1.75 after it"
    assert f"general loss on 40 chats that no training row resembles: {change}" in lines


def test_without_the_untrained_model(tmp_path):
    lines = printed(tmp_path, ("tuned", 1.0))
    assert "trained phrasings 3 of 8 – 100.0% – 100.0%" in lines
    assert not any(line.startswith("compare") for line in lines)


def test_a_stopped_endpoint_is_offered_for_a_start(tmp_path):
    lines = printed(tmp_path, ("tuned", 1.0))
    assert f"endpoint phi3 endpoint --model {tmp_path / 'model' / 'model'}" in lines
    assert not any(line.startswith("stop") for line in lines)


@pytest.mark.parametrize("installed", [True, False])
def test_the_activation_is_named_only_if_it_is_needed(tmp_path, monkeypatch, installed):
    monkeypatch.setattr("shutil.which", lambda name: "phi3" if installed else None)
    lines = printed(tmp_path, ("tuned", 1.0))
    assert any(line.startswith("first source") for line in lines) != installed
