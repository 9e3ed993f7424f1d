"""What a batch reads from a flow: the columns of its inputs, and the nodes that use a connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.definition import FlowDefinition


def flow(**inputs):
    return FlowDefinition(folder="flow", inputs=inputs, nodes=[], version=None)


def node(name, connection):
    return {"name": name, "inputs": {"connection": connection}}


def test_a_shipped_flow_is_found_by_its_name():
    chat = FlowDefinition.read(Path("chat"))
    assert set(chat.inputs) == {"question", "chat_history"}
    assert chat.version
    assert chat.connections("mine") == {"chat": {"connection": "mine"}}


def test_columns_come_by_name_and_the_base_runs_outputs_first():
    columns = flow(answer={}, ground_truth={}).columns({}, ["answer", "ground_truth"], ["answer"])
    assert columns == {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"}


def test_the_given_mapping_wins():
    assert flow(q={}).columns({"q": "${data.other}"}, ["q", "other"]) == {"q": "${data.other}"}


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("${data.quesion}", "answer, question; did you mean question?"),
        ("${run.outputs.text}", "reply$"),
    ],
)
def test_a_mapping_to_a_column_that_does_not_exist_is_refused(source, columns):
    with pytest.raises(
        OpsError, match=f"'q' is mapped to .*, which does not exist.*{columns}"
    ) as e:
        flow(q={}).columns({"q": source}, ["question", "answer"], ["reply"])
    assert source in str(e.value)


def test_an_element_of_a_column_may_be_mapped():
    mapping = {"q": "${data.messages[0].content}"}
    assert flow(q={}).columns(mapping, ["messages"]) == mapping


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


def test_a_file_that_is_not_a_flow_is_an_error(tmp_path):
    (tmp_path / "flow.dag.yaml").write_text("inputs: 3")
    with pytest.raises(OpsError, match="is not a valid flow"):
        FlowDefinition.read(tmp_path)


def test_a_folder_without_a_flow_is_an_error(tmp_path):
    with pytest.raises(OpsError, match="is not a flow. Give a folder with a flow.dag.yaml"):
        FlowDefinition.read(tmp_path)


def test_a_flow_without_a_connection_cannot_be_given_one():
    with pytest.raises(OpsError, match="no node of flow uses a connection"):
        flow().connections("mine")


def test_connections_are_those_of_the_overrides_then_those_of_the_flow():
    nodes = [node("a", "one"), node("b", "two"), node("c", "${inputs.x}"), {"name": "d"}]
    definition = FlowDefinition(folder="flow", inputs={}, nodes=nodes, version=None)
    names = definition.connection_names({"b": {"connection": "mine"}})
    assert names == {"a": "one", "b": "mine"}


def test_an_unknown_input_is_named():
    with pytest.raises(OpsError, match="flow has no input 'x'. Its inputs are q."):
        flow(q={}).columns({"x": "1"}, ["q"])
