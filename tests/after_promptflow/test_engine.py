"""Flows that import promptflow run without it, with the outcomes of `outcomes.json`.

tests/phi3_tools/flow/test_parity.py compares that file with promptflow's own executor.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pytest

import phi3_ops
import phi3_tools
from phi3_ops import paths
from phi3_tools.connections import Connection

EXAMPLES = Path(__file__).parents[1] / "phi3_tools" / "flow" / "examples"
OUTCOMES = json.loads((EXAMPLES.parent / "outcomes.json").read_text())
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from engine_parity import outcome_of_ours  # noqa: E402
from judge_endpoint import KEY, judge_endpoint  # noqa: E402

# What needs another extra at its import.
OTHERS = ("azure", "promptflow", "datasets", "pyarrow", "mlflow")


@pytest.mark.parametrize("name", OUTCOMES)
def test_an_example_flow_has_the_outcome_that_promptflow_gave_it(name):
    flow = EXAMPLES / name
    lines = [json.loads(line) for line in (flow / "data.jsonl").read_text().splitlines()]
    outcome = outcome_of_ours(flow, lines)
    assert json.loads(json.dumps([outcome.lines, outcome.metrics])) == OUTCOMES[name]


def test_an_llm_node_needs_no_promptflow_tools():
    with judge_endpoint() as server:
        configs = {"endpoint": server.url("/v1/chat/completions"), "contract": "openai"}
        connection = Connection("gpt", configs, {"key": KEY})
        line = {"question": "7 x 8?", "answer": "56", "ground_truth": "56", "context": ""}
        outcome = outcome_of_ours(paths.FLOWS / "judge_llm", [line], lambda name: connection)
    assert outcome.lines[0]["correctness"] == 5


@pytest.mark.parametrize("package", [phi3_tools, phi3_ops], ids=lambda package: package.__name__)
def test_every_module_can_be_imported(package):
    failures = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in OTHERS:
                failures[module.name] = str(error)
    assert failures == {}
    assert "promptflow" not in sys.modules
