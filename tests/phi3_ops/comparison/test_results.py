"""The JSON document of a comparison: its keys are those of docs/evaluation.md, schema 1."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hostile_answers import hostile_report
from phi3_ops.comparison.gates import PASS, GateVerdict
from phi3_ops.comparison.results import (
    ComparedData,
    Comparison,
    FactDifference,
    LineScores,
    MetricComparison,
    Outcomes,
    PairedResult,
    RunSummary,
    ScoreMean,
    SliceComparison,
    StatisticsSettings,
)
from phi3_ops.comparison.thresholds import Metric
from phi3_ops.runs.scored import RunOutputs, ScoredRun

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
RESULT = PairedResult(2, 0.5, 1.0, 0.5, -0.1, 1.1, Outcomes(1, 0, 1, 1.0))
RESULT_JSON = {
    "n": 2,
    "baseline_mean": 0.5,
    "mean": 1.0,
    "difference": 0.5,
    "low": -0.1,
    "high": 1.1,
    "wins": 1,
    "losses": 0,
    "ties": 1,
    "p_value": 1.0,
}


def make_comparison(gate=None):
    run = ScoredRun("b", Path("data.jsonl"), RunOutputs({}))
    mean = ScoreMean(2, 1.0, None, 0)
    return Comparison(
        data=ComparedData("data.jsonl", "0" * 64, 2),
        settings=StatisticsSettings(0.95, 500, 1, 0.05, 0.1),
        metrics={"score": Metric(range=(0, 1), margin=0.02)},
        runs=[RunSummary("A", "a", "", 2, 0, {"score": mean}, {"flow": "qa"}, {"lines": None})],
        differences=[FactDifference("flow", ["qa", None])],
        comparisons=[
            MetricComparison("B", "score", RESULT, 0, gate, [SliceComparison("kind", "x", RESULT)])
        ],
        rows=[{"question": "q"}] * 2,
        line_scores=[LineScores(run, {"score": np.ones(2)}, np.zeros(2, dtype=bool))],
    )


def test_the_whole_document():
    assert make_comparison(GateVerdict(0.02, PASS, "as good")).to_json() == {
        "schema": 1,
        "data": {"path": "data.jsonl", "sha256": "0" * 64, "lines": 2},
        "settings": {
            "confidence": 0.95,
            "resamples": 500,
            "seed": 1,
            "max_unparsed": 0.05,
            "max_failed": 0.1,
        },
        "metrics": {
            "score": {
                "higher_is_better": True,
                "range": (0, 1),
                "margin": 0.02,
                "failed": None,
                "sampled": False,
            }
        },
        "runs": [
            {
                "letter": "A",
                "name": "a",
                "note": "",
                "answered": 2,
                "failed": 0,
                "scores": {"score": {"n": 2, "mean": 1.0, "stderr": None, "unscored": 0}},
                "facts": {"flow": "qa"},
                "logged": {"lines": None},
            }
        ],
        "differences": [{"fact": "flow", "values": ["qa", None]}],
        "comparisons": [
            {
                "run": "B",
                "metric": "score",
                **RESULT_JSON,
                "unscored": 0,
                "gate": {"margin": 0.02, "verdict": "pass", "reason": "as good"},
                "slices": [{"by": "kind", "value": "x", **RESULT_JSON}],
            }
        ],
        "gate": {"verdict": "pass", "exit_code": 0},
    }


def test_without_a_gate():
    comparison = make_comparison()
    document = comparison.to_json()
    assert document["gate"] is None and "gate" not in document["comparisons"][0]
    assert comparison.exit_code == 0


def test_a_score_without_direction_has_no_outcomes():
    result = PairedResult(0, None, None, None, None, None, None)
    assert result.to_json().keys() == RESULT_JSON.keys() - {"wins", "losses", "ties", "p_value"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return hostile_report(tmp_path_factory.mktemp("results")).to_json()


def documented_fields():
    """The table of docs/evaluation.md: field -> names in its description."""
    page = DOCS.read_text(encoding="utf-8").partition("`compare.json` (schema 1)")[2]
    rows = re.findall(r"^\| `(\w+)(?:\[\])?` \| (.+) \|$", page.partition("\n\n`")[0], re.MULTILINE)
    return {field: re.findall(r"`(\w+)(?:\[\])?`", names) for field, names in rows}


def test_the_document_has_the_documented_fields(document):
    fields = documented_fields()
    slices = fields.pop("slices")
    assert {"schema", *fields} == set(document)
    entry = document["comparisons"][0]
    assert list(entry) == fields["comparisons"]
    assert set(slices) <= set(entry["slices"][0])
    for name in ("data", "settings", "gate"):
        assert list(document[name]) == fields[name]
    assert set(document["runs"][0]) <= set(fields["runs"])
    assert list(document["metrics"]["chrf"]) == fields["metrics"]
    assert list(document["differences"][0]) == fields["differences"]


def test_the_document_is_strict_json(document):
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["schema"] == 1
