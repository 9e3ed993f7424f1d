"""Cells are made and checked before the first call: what does not exist is named in one line."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.sweeps.cells import make_cells
from phi3_ops.sweeps.config import load_sweep


@pytest.fixture
def cells(write_sweep, tmp_path):
    """Return a function that makes the cells of a sweep."""

    def make(**fields):
        return make_cells(load_sweep(write_sweep(**fields)), tmp_path / "staging")

    return make


def labels(cells):
    return {cell.letter: cell.label for cell in cells}


def test_every_combination_is_a_cell_and_the_baseline_is_first(server, cells):
    made = cells(
        connections=["cells", "cells2"],
        parameters={"max_new_tokens": [16, 32], "answer.temperature": [0.5]},
        baseline={"prompt": "good", "connection": "cells2", "parameters": {"max_new_tokens": 32}},
        exclude=[{"prompt": "plain", "parameters": {"max_new_tokens": 16}}],
    )
    assert labels(made) == {
        "A": "good, cells2, max_new_tokens=32, answer.temperature=0.5",
        "B": "plain, cells, max_new_tokens=32, answer.temperature=0.5",
        "C": "plain, cells2, max_new_tokens=32, answer.temperature=0.5",
        "D": "good, cells, max_new_tokens=16, answer.temperature=0.5",
        "E": "good, cells, max_new_tokens=32, answer.temperature=0.5",
        "F": "good, cells2, max_new_tokens=16, answer.temperature=0.5",
    }
    assert made[0].columns == {"input_data": "${data.question}", "max_new_tokens": "32"}
    assert made[0].connections == {"answer": {"connection": "cells2"}}
    assert made[0].flow == made[4].flow != made[1].flow  # one flow for all cells that share it
    assert len({cell.fingerprint for cell in made}) == 6


def test_a_bare_name_is_an_input_of_the_flow_or_of_its_only_node(server, cells):
    made = cells(parameters={"temperature": [0.0, 1.0]}, prompts={"plain": None})
    assert made[0].flow != made[1].flow
    assert "temperature: 1.0" in (made[1].flow / "flow.dag.yaml").read_text().replace('"', "")


def test_without_connections_the_flow_keeps_its_own(server, cells):
    parameters = {"answer.connection": ["cells"]}
    with pytest.raises(OpsError, match="'answer.connection' is not a parameter. List the names in"):
        cells(parameters=parameters)


def test_the_fingerprint_changes_with_what_the_answers_depend_on(server, cells):
    first = cells()
    assert [cell.fingerprint for cell in cells()] == [cell.fingerprint for cell in first]
    prompts = {"plain": None, "good": {"inputs": {"answer.system_prompt": "11"}}}
    changed = cells(prompts=prompts)
    assert changed[0].fingerprint == first[0].fingerprint
    assert changed[1].fingerprint != first[1].fingerprint
    other_data = cells(questions=["1"])
    assert other_data[0].fingerprint != first[0].fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"connections": ["celsl"]}, "the connection 'celsl' does not exist"),
        ({"flow": "qaa"}, "qaa is not a flow. Give a folder .*; did you mean qa?"),
        (
            {"prompts": {"a": {"variant": "answer.v9"}, "b": None}},
            "prompts.a: field `node_variants`: the variant answer.v9 does not exist",
        ),
        (
            {"parameters": {"temprature": [1]}},
            "qa, the flow of the prompt plain, has no parameter 'temprature'. It has input_data, .*"
            "answer.temperature.*; did you mean answer.temperature?",
        ),
        ({"parameters": {"answr.temperature": [1]}}, "has no parameter 'answr.temperature'"),
        (
            {"parameters": {"answer.temperature": ["hot"]}},
            "the cell 'plain, cells, answer.temperature=hot': .*'hot' is not a valid double",
        ),
        (
            {"prompts": {"a": {"file": "none.jinja2"}, "b": None}},
            "prompts.a.file: .*none.jinja2 does not exist",
        ),
        (
            {"prompts": {"a": {"file": "sweep.yaml"}, "b": None}},
            "prompts.a: no node of .*qa has a prompt file. Set its text in `inputs`",
        ),
        (
            {"prompts": {"a": None, "b": {}}},
            "the cells 'a, cells' and 'b, cells' are equal. Remove one of them, or exclude it.",
        ),
        (
            {"connections": ["cells", "cells"]},
            "the cells 'plain, cells' and 'plain, cells' are equal",
        ),
        ({"prompts": {"a": None}}, "the sweep has 1 cells. A sweep compares 2 to 26 cells"),
        ({"parameters": {"max_new_tokens": list(range(1, 15))}}, "the sweep has 28 cells"),
        (
            {"exclude": [{"prompt": "plan"}]},
            "exclude.0.prompt: 'plan' does not exist. Use one of plain, good; did you mean plain?",
        ),
        ({"exclude": [{"connection": "x"}]}, "exclude.0.connection: 'x' does not exist"),
        ({"exclude": [{"parameters": {"x": 1}}]}, "exclude.0.parameters: 'x' does not exist"),
        (
            {
                "parameters": {"max_new_tokens": [1, 2]},
                "exclude": [{"parameters": {"max_new_tokens": 3}}],
            },
            "exclude.0: no cell matches",
        ),
        (
            {"baseline": {"connection": "cells"}},
            "baseline: 2 cells match, such as 'plain, cells' and",
        ),
        ({"columns": {"input": "x"}}, "columns: no flow has the input 'input'"),
        (
            {"columns": None},
            "the input 'input_data' of .* has no column. Set the source in `columns`",
        ),
        (
            {"columns": {"input_data": "${data.q}"}},
            "is mapped to \\$\\{data.q\\}, which does not exist. Set the source in `columns`",
        ),
    ],
)
def test_what_does_not_exist_is_named(server, cells, fields, message):
    with pytest.raises(OpsError, match=message) as caught:
        cells(**fields)
    assert "\n" not in str(caught.value)
    assert server.answered == []
