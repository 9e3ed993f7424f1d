"""promptflow's example flows as exported code: outputs, errors and metrics are the engine's."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path

import pytest

from exports import engine_result, exported
from phi3_tools.flow import Engine, load_flow

EXAMPLES = sorted((Path(__file__).parents[1] / "phi3_tools" / "flow" / "examples").iterdir())


@pytest.mark.parametrize("form", ["agent-framework", "fastapi"])
@pytest.mark.parametrize("flow", EXAMPLES, ids=lambda flow: flow.name)
def test_an_example_has_the_same_outcome(flow, form, tmp_path):
    rows = [json.loads(line) for line in (flow / "data.jsonl").read_text().splitlines()]
    with Engine(load_flow(flow)) as engine:
        expected = [engine_result(engine, row) for row in rows]
        aggregated = engine.aggregate([engine.run(row) for row in rows])
    with exported(flow, form, tmp_path / "out") as export:
        assert [export.run(row) for row in rows] == expected
        if engine.has_aggregation:
            evaluate = importlib.import_module("evaluate")
            lines, _ = asyncio.run(evaluate.run_lines(rows, 4))
            assert asyncio.run(evaluate.aggregate_lines(lines)) == aggregated.metrics
