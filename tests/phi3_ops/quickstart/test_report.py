"""The printed table and the commands after a quickstart."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from phi3_ops.quickstart.report import print_results
from phi3_ops.quickstart.results import ModelEvaluation
from phi3_ops.quickstart.steps import QuickstartJob, QuickstartOptions
from phi3_tools.evaluation import Mean


def printed(workdir, *models):
    """The lines that are printed after the evaluation of some models."""
    console = Console(file=io.StringIO(), width=200)
    job = QuickstartJob(QuickstartOptions(workdir=workdir), console, seconds={"data": 0.6})
    job.questions = [{"kind": "trained"}] * 3
    for name, share in models:
        means = {"trained": Mean(mean=share, stderr=0.0, n=3)}
        scores = {"exact_match": means, "token_f1": means}
        job.evaluations[name] = ModelEvaluation(f"{name}-run", f"{name}-eval", 3, 0, scores)
    print_results(job)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_both_models(tmp_path):
    lines = printed(tmp_path, ("base", 0.0), ("tuned", 2 / 3))
    assert "trained phrasings 3 0.0% 66.7% 0.0% 66.7%" in lines
    assert "compare phi3 compare base-run tuned-run --by kind" in lines
    assert "runs pf run show-details --name tuned-run" in lines
    assert "time 1 s (data 1)" in lines
    assert f"remove phi3 quickstart --remove --workdir {tmp_path}" in lines


def test_without_the_untrained_model(tmp_path):
    lines = printed(tmp_path, ("tuned", 1.0))
    assert "trained phrasings 3 – 100.0% – 100.0%" in lines
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
