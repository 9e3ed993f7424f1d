"""The results of a quickstart, as summary.json contains them."""

from __future__ import annotations

import json
from pathlib import Path

from phi3_ops.quickstart.results import (
    FirstQuestion,
    LossChange,
    ModelEvaluation,
    QuickstartSummary,
)
from phi3_tools.evaluation import Mean


def make_evaluation(name, share):
    means = {
        "trained": Mean(mean=share, stderr=0.01, n=480),
        "unknown": Mean(mean=0.0, stderr=0.0, n=30),
    }
    scores = {"exact_match": means, "token_f1": means}
    return ModelEvaluation(f"{name}-run", f"{name}-scores", 600, 2, scores)


def make_summary(before):
    return QuickstartSummary(
        seed=1,
        base="tiny",
        recipe="tiny-cpu",
        seconds={"data": 0.25, "chat": 1.5},
        peak_memory=700_000_000,
        rows={"trained": 480, "unknown": 30},
        asked={"trained": 60, "unknown": 30},
        answer_tokens=48,
        before=before,
        after=make_evaluation("tuned", 0.98765),
        general_loss=LossChange(40, before=1.5, after=1.75),
        question=FirstQuestion("Who founded Microsoft?", "Bill Gates and Paul Allen."),
        answer="Bill Gates.",
        model=Path("work/model"),
        connection="phi3",
        page="http://127.0.0.1:9/",
    )


def test_the_whole_document():
    document = make_summary(make_evaluation("base", 0.0)).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "seed": 1,
        "base": "tiny",
        "recipe": "tiny-cpu",
        "seconds": {"data": 0.25, "chat": 1.5, "total": 1.75},
        "peak_memory_bytes": 700_000_000,
        "questions": {
            "trained": {"asked": 60, "rows": 480},
            "unknown": {"asked": 30, "rows": 30},
        },
        "answer_tokens": 48,
        "exact_match": {
            "before": {"trained": 0.0, "unknown": 0.0},
            "after": {"trained": 0.9877, "unknown": 0.0},
        },
        "token_f1": {
            "before": {"trained": 0.0, "unknown": 0.0},
            "after": {"trained": 0.9877, "unknown": 0.0},
        },
        "general_loss": {"rows": 40, "before": 1.5, "after": 1.75},
        "lines": {
            "before": {"lines": 600, "failed": 2},
            "after": {"lines": 600, "failed": 2},
        },
        "runs": {"base": ["base-run", "base-scores"], "tuned": ["tuned-run", "tuned-scores"]},
        "answer": {
            "question": "Who founded Microsoft?",
            "reference": "Bill Gates and Paul Allen.",
            "text": "Bill Gates.",
        },
        "model": str(Path("work/model")),
        "connection": "phi3",
        "page": "http://127.0.0.1:9/",
    }


def test_without_a_base_model():
    document = make_summary(None).to_json()
    assert document["exact_match"]["before"] is None and document["lines"]["before"] is None
    assert list(document["runs"]) == ["tuned"]
