"""References are read and resolved as promptflow reads and resolves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promptflow.contracts.flow import InputAssignment, InputValueType
from promptflow.executor._input_assignment_parser import parse_value

from phi3_tools.flow.errors import LineError
from phi3_tools.flow.references import (
    InputReference,
    Literal,
    NodeReference,
    output_of,
    parse_assignment,
    value_of,
)

WRITTEN = [
    "${inputs.a}", "${flow.a}", "${inputs.a.b}", "${n}", "${n.output}", "${n.output.a.b}", "${n.x}",
    "${n.output['a'][0]}", "${n.output.['a b']}", "${n.}", "${.}", "${}", "${", "$", "$x", "{n}", "n",
    "${n.output} ", "$${n}", 5, None, [], {"a": "${n.output}"}, True,
]  # fmt: skip
OUTPUTS = {"n": {"a": {"b": [1, {"c": None}]}, "a b": "text", "0": "zero"}, "m": [1, "two"], "k": 7}


def meaning(theirs):
    if theirs.value_type == InputValueType.LITERAL:
        return Literal(theirs.value)
    if theirs.value_type == InputValueType.FLOW_INPUT:
        return InputReference(theirs.value)
    return NodeReference(theirs.value, theirs.section, theirs.property)


@pytest.mark.parametrize("value", WRITTEN, ids=map(str, WRITTEN))
def test_an_input_means_the_same_as_to_promptflow(value):
    assert parse_assignment(value) == meaning(InputAssignment.deserialize(value))


@given(st.text("${}.[]'\"an0 output", max_size=14))
def test_any_text_means_the_same_as_to_promptflow(text):
    assert parse_assignment("${" + text + "}") == meaning(
        InputAssignment.deserialize("${" + text + "}")
    )


@given(st.sampled_from("nmk"), st.text(".[]'ab01c_-", max_size=8))
def test_a_property_has_the_same_value_as_in_promptflow(node, properties):
    written = f"${{{node}.output.{properties}}}"
    try:
        theirs = parse_value(InputAssignment.deserialize(written), OUTPUTS, {})
    except Exception as error:
        codes = getattr(error, "error_codes", None) or ["SystemError", type(error).__name__]
        with pytest.raises(LineError) as raised:
            value_of(parse_assignment(written), {}, OUTPUTS)
        assert list(raised.value.codes) == codes
    else:
        assert value_of(parse_assignment(written), {}, OUTPUTS) == theirs


def test_an_output_of_the_flow_ignores_the_section():
    reference = parse_assignment("${n.result}")
    assert output_of(reference, {}, OUTPUTS) == OUTPUTS["n"]
    with pytest.raises(LineError, match="names 'result' instead of `output`"):
        value_of(reference, {}, OUTPUTS)


@pytest.mark.parametrize(
    "written", ["${inputs.a}", "${n.output}", "${n.output.a['b']}", "${n.x.y}"]
)
def test_a_reference_can_be_written_again(written):
    assert str(parse_assignment(written)) == written


def test_a_tool_may_change_its_list_or_mapping():
    for value in ([1], {"a": [1]}):
        literal = Literal(value)
        changed = value_of(literal, {}, {})
        changed.clear()
        assert value_of(literal, {}, {}) == value != {}
    pieces = [iter("ab")]  # an aggregation's values cannot be copied
    assert value_of(Literal(pieces, is_computed=True), {}, {}) is pieces
