"""What `phi3 run` prints of batches and their scores, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from phi3_ops import runs
from phi3_ops.cli._scores import ScoredBatch, print_batch, print_scores_as_json
from phi3_ops.runs.batch import Batch
from phi3_tools.evaluation import Mean

ANSWERED = Batch("asked", {0: {}, 1: {}, 2: {}}, 4, "told\nto fail")


@pytest.fixture(autouse=True)
def scores(monkeypatch):
    monkeypatch.setattr(runs, "mean_scores", lambda batch: {"exact_match": Mean(4, 0.75, 0.25)})


def test_a_batch_as_text(capsys):
    print_batch(ANSWERED, seconds=2.0, tokens=1234)
    assert capsys.readouterr().out.splitlines() == [
        "asked: 4 lines, 1 failed, 2.0 s, 2.0 lines/s, 1,234 tokens",
        "  first failure: told to fail",
        "  details: phi3 runs --show asked",
    ]


def test_batches_as_json(capsys):
    scored = Batch("scored", {n: {} for n in range(4)}, 4)
    print_scores_as_json([ScoredBatch(ANSWERED, scored), ScoredBatch(scored)])
    document = json.loads(capsys.readouterr().out)
    assert document["items"] == [
        {"run": "asked", "metric": "exact_match", "n": 4, "mean": 0.75, "stderr": 0.25}
    ]
    answered, not_scored = document["runs"]
    assert answered == {
        "name": "asked",
        "lines": 4,
        "answered": 3,
        "failed": 1,
        "first_failure": "told to fail",
        "scores_run": "scored",
    }
    assert (not_scored["first_failure"], not_scored["scores_run"]) == (None, None)
