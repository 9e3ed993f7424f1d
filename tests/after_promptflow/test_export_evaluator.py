"""The exported evaluator class under azure-ai-evaluation, and Foundry's graders: the engine's scores."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
from pathlib import Path

import pytest

from exports import exported
from phi3_ops import paths
from phi3_tools.flow import Engine, LineError, load_flow

ROWS = [
    {"answer": "Bill Gates and Paul Allen.", "ground_truth": "Paul Allen and Bill Gates"},
    {"answer": "Microsoft", "ground_truth": "The microsoft!"},
    {"answer": "1975", "ground_truth": "in 1975, in Albuquerque"},
    {"answer": "", "ground_truth": "1975"},
]


@pytest.fixture(scope="module")
def scores():
    """The outputs of the shipped flow, for every row."""
    with Engine(load_flow(paths.FLOWS / "eval")) as engine:
        return [engine.run(row).outputs for row in ROWS]


@pytest.fixture
def export(tmp_path):
    with exported("eval", "evaluator", tmp_path / "out") as export:
        yield export


def test_the_class_scores_as_the_flow(export, scores):
    evaluator = importlib.import_module("evaluator").EvalEvaluator()
    assert [evaluator(**row, conversation=None) for row in ROWS] == scores
    with pytest.raises(TypeError, match="ground_truth"):
        evaluator(answer="1975")

    async def inside_a_loop():
        return evaluator(**ROWS[0])

    assert asyncio.run(inside_a_loop()) == scores[0]


def test_azure_ai_evaluation_runs_it(export, scores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluation = pytest.importorskip("azure.ai.evaluation")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    evaluator = importlib.import_module("evaluator").EvalEvaluator()
    result = evaluation.evaluate(data=str(data), evaluators={"eval": evaluator})
    for row, expected in zip(result["rows"], scores):
        assert {name: row[f"outputs.eval.{name}"] for name in expected} == pytest.approx(expected)


def test_a_failing_line_keeps_its_error(tmp_path):
    flow = Path(__file__).with_name("flows") / "branches"
    with exported(flow, "evaluator", tmp_path / "out"):
        evaluator = importlib.import_module("evaluator").BranchesEvaluator()
        assert evaluator(text="Hi")["text"] == "no letter|Hi Hi Hi."
        with pytest.raises(LineError, match="no such text"):
            evaluator(text="boom")


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "rouge_l"])
def test_a_grader_gives_the_score_without_this_package(name, export, scores):
    file = export.folder / "graders" / f"{name}.py"
    assert "phi3" not in file.read_text()
    spec = importlib.util.spec_from_file_location(name, file)
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)
    for row, expected in zip(ROWS, scores):
        sample, item = {"output_text": row["answer"]}, {"ground_truth": row["ground_truth"]}
        assert grader.grade(sample, item) == expected[name]
        assert 0 <= expected[name] <= 1
