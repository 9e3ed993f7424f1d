"""flows/eval_structured: the scores of both kinds of lines, the metrics, and `phi3 compare` over them."""

from __future__ import annotations

import json

import pytest
import yaml

from phi3_ops import paths
from phi3_ops.comparison.compare import compare_runs
from phi3_ops.comparison.thresholds import load_thresholds
from phi3_ops.runs.scored import load_scored_run
from phi3_tools.evaluation.structured import structured_scores, tool_call_match
from phi3_tools.flow import Engine, load_flow

FOLDER = paths.FLOWS / "eval_structured"
OBJECT_SCORES = ["valid_json", "schema_match", "field_exact", "field_f1"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {"name": "get_weather", "arguments": {"city": "Wien"}}


@pytest.fixture(scope="module")
def engine():
    with Engine(load_flow(FOLDER)) as engine:
        yield engine


def object_line(answer):
    return {"answer": answer, "ground_truth": {"city": "Wien"}, "schema": SCHEMA}


def call_line(calls, expected=(CALL,)):
    return {"answer": "", "tool_calls": calls, "expected_calls": list(expected)}


def test_a_line_has_the_scores_of_its_kind(engine):
    outputs = engine.run(object_line('{"city": "Graz"}')).outputs
    expected = structured_scores({"city": "Graz"}, {"city": "Wien"}, SCHEMA)
    assert outputs == {**expected, "tool_call_match": None}
    outputs = engine.run(call_line([CALL])).outputs
    assert outputs == {
        **dict.fromkeys(OBJECT_SCORES),
        "tool_call_match": tool_call_match([CALL], [CALL]),
    }
    assert engine.run(call_line([CALL], [])).outputs["tool_call_match"] == 0.0


@pytest.mark.parametrize("text", ['"{}"', "NaN", '{"city": NaN}', "hello", "[1]"])
def test_a_text_is_parsed_once(engine, text):
    line = {"answer": text, "ground_truth": "{}", "schema": {"type": "object"}}
    expected = structured_scores(text, "{}", line["schema"])
    assert engine.run(line).outputs == {**expected, "tool_call_match": None}
    assert expected["schema_match"] == 0.0
    assert expected["valid_json"] == float(text in ('"{}"', "[1]"))


def test_metrics_are_means_over_the_lines_of_a_kind(engine):
    lines = [
        object_line("{}"),
        object_line('{"city": "Wien"}'),
        object_line("no"),
        call_line([CALL]),
    ]
    metrics = engine.aggregate([engine.run(line) for line in lines]).metrics
    assert (metrics["lines"], metrics["valid_json_lines"], metrics["tool_call_match_lines"]) == (
        4,
        3,
        1,
    )
    assert metrics["valid_json"] == pytest.approx(2 / 3)
    assert metrics["schema_match"] == metrics["field_exact"] == pytest.approx(1 / 3)
    assert metrics["valid_json_stderr"] == pytest.approx(1 / 3)


def test_the_flow_lists_its_packages_and_thresholds():
    flow = yaml.safe_load((FOLDER / "flow.dag.yaml").read_text())
    assert set(load_thresholds(FOLDER / "thresholds.yaml").metrics) == set(flow["outputs"])
    assert [name for name, field in flow["inputs"].items() if "default" not in field] == ["answer"]
    requirements = (FOLDER / flow["environment"]["python_requirements_txt"]).read_text()
    assert "jsonschema-rs" in requirements


def scored_run(engine, folder, name, answers):
    rows = [{"line_number": n, **engine.run(object_line(a)).outputs} for n, a in enumerate(answers)]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_scored_run(str(file), folder / "data.jsonl")


def test_compare_has_an_interval_for_each_score(engine, tmp_path):
    good, bad = '{"city": "Wien"}', "Wien"
    (tmp_path / "data.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
    before = scored_run(engine, tmp_path, "before", [bad] * 16 + [good] * 4)
    after = scored_run(engine, tmp_path, "after", [bad] * 2 + [good] * 18)
    comparison = compare_runs([before, after], load_thresholds(FOLDER / "thresholds.yaml"))
    assert [entry.metric for entry in comparison.comparisons] == OBJECT_SCORES
    for entry in comparison.comparisons:
        result = entry.result
        assert result.difference == pytest.approx(0.7)
        assert 0 < result.low < 0.7 < result.high <= 1
        assert (result.outcomes.wins, result.outcomes.losses) == (14, 0)
