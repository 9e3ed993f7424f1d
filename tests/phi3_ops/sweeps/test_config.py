"""The file of a sweep: a wrong field is named, and paths are relative to the file."""

from __future__ import annotations

import re

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.sweeps.config import load_sweep, value_text

MINIMAL = "name: x\nflow: qa\ndata: d.jsonl\nmetrics: [exact_match]\n"


def load(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return load_sweep(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conections: [a]", "`conections`: extra inputs are not permitted"),
        ("repeats: 3", "`repeats` is not a field; list seeds instead"),
        ("connections: [../a]", "`connections.0`: '../a' is not a valid name"),
        ("prompts: {p: {flows: qa}}", "`prompts.p.flows`: extra inputs are not permitted"),
        ("prompts: {p: {node: answer}}", "`prompts.p`: `node` needs `file`"),
        ("prompts: {}", "`prompts`"),
        ("parameters: {a: []}", "`parameters.a`"),
        ("parameters: {a: [.nan]}", "`parameters.a.0`: nan is not a value; use a finite number"),
        ("parameters: {a: [[1]]}", "`parameters.a.0`: [1] is not a value"),
        ("prompts: {p: x}", "`prompts.p`: it must be a mapping"),
        ("evaluate: []", "`evaluate`"),
        ("metrics: []", "`metrics`"),
        ("metrics: [a, a]", "`metrics` names a score twice"),
        ("columns: {a: x}\nparameters: {a: [1]}", "`columns` and `parameters` both set 'a'"),
        ("prices: {a: {prompt: 1, completion: 1}}", "`prices` names 'a', which is not one of"),
        ("prices: {a: {prompt: -1, completion: 1}}", "`prices.a.prompt`"),
        ("flow: null", "the prompt default has no flow; set `flow`"),
        ("name: a b", "`name`: 'a b' is not a valid name"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, text, message):
    fields = {line.partition(":")[0] for line in text.splitlines()}
    kept = [line for line in MINIMAL.splitlines() if line.partition(":")[0] not in fields]
    with pytest.raises(OpsError, match=re.escape(message)) as caught:
        load(tmp_path, "\n".join([*kept, text]))
    assert str(caught.value).startswith(f"{tmp_path / 'sweep.yaml'}: `")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "cannot read .*must be a YAML file"),
        ("- a", "sweep.yaml is not a mapping"),
        ("name: x\nname: y", "line 2: the key `name` appears twice"),
    ],
)
def test_a_file_that_is_not_a_mapping(tmp_path, text, message):
    with pytest.raises(OpsError, match=message):
        load(tmp_path, text)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(OpsError, match="none.yaml does not exist"):
        load_sweep(tmp_path / "none.yaml")


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "flow.dag.yaml").touch()
    text = (
        "prompts: {p: , q: {flow: mine, file: q.jinja2}}\nevaluate: [{flow: mine}, {flow: eval}]\n"
    )
    config = load(tmp_path, MINIMAL + text)
    assert config.data == tmp_path / "d.jsonl"
    assert config.prompts["p"].flow == "qa"  # a shipped flow
    assert config.prompts["q"].flow == str(tmp_path / "mine")
    assert config.prompts["q"].file == tmp_path / "q.jinja2"
    assert [item.flow for item in config.evaluate] == [str(tmp_path / "mine"), "eval"]


def test_values_keep_their_types(tmp_path):
    values = load(tmp_path, MINIMAL + "parameters: {a: [1, 1.5, true, text, '1']}\n").parameters[
        "a"
    ]
    assert [type(value) for value in values] == [int, float, bool, str, str]
    assert [value_text(value) for value in values] == ["1", "1.5", "true", "text", "1"]


def test_the_cost_of_tokens(tmp_path):
    text = "connections: [a, b]\nprices: {a: {prompt: 0.5, completion: 2}}\n"
    config = load(tmp_path, MINIMAL + text)
    assert config.cost("a", 2000, 500) == 2.0
    assert config.cost("a", 2000, None) is None
    assert config.cost("b", 1, 1) is None and config.cost(None, 1, 1) is None
