"""What a batch reads of a flow: its inputs' columns, and the nodes that take a connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition


def flow(**inputs):
    return FlowDefinition(folder="flow", inputs=inputs, nodes=[], version=None)


def test_a_shipped_flow_is_found_by_its_name():
    found = FlowDefinition.read(Path("chat"))
    assert set(found.inputs) == {"question", "chat_history"}
    assert found.version
    assert found.connections("mine") == {"chat": {"connection": "mine"}}


def test_columns_come_by_name_and_the_base_runs_outputs_first():
    found = flow(answer={}, ground_truth={}).columns({}, ["answer", "ground_truth"], ["answer"])
    assert found == {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"}


def test_what_is_given_wins():
    assert flow(q={}).columns({"q": "${data.other}"}, ["q"]) == {"q": "${data.other}"}


def test_an_input_is_left_to_its_default_when_another_varies():
    assert flow(q={}, k={"default": 3}).columns({}, ["q"]) == {"q": "${data.q}"}


@pytest.mark.parametrize(
    "columns, inputs", [([], {"default": 1}), (["x"], {"default": 1}), ([], {})]
)
def test_a_default_never_makes_every_line_the_same(columns, inputs):
    with pytest.raises(OpsError, match="the input 'q' of flow has no column.*Columns"):
        flow(q=inputs).columns({}, columns)


def test_a_constant_does_not_vary():
    with pytest.raises(OpsError, match="the input 'q'"):
        flow(q={"default": 1}, k={}).columns({"k": "2"}, [])


def test_a_file_that_is_no_flow_is_told(tmp_path):
    (tmp_path / "flow.dag.yaml").write_text("inputs: 3")
    with pytest.raises(OpsError, match="is no flow"):
        FlowDefinition.read(tmp_path)
