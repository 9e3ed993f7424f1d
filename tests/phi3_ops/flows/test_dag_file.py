"""A flow.dag.yaml that is read, changed and written again keeps its values."""

from __future__ import annotations

import pytest
from promptflow._utils.yaml_utils import load_yaml as load_as_promptflow

from phi3_ops.errors import OpsError
from phi3_ops.flows.dag_file import read_dag_file, write_dag_file

TEXT = """\
inputs: {text: {type: string, default: yes}, number: {type: string, default: '1e3'}}
nodes:
- name: a
  inputs: {a: '010', b: 010, c: off, d: 'null', e: 1e3, f: "x\\n y ", g: 12:30, h: 0o10, 'on': ~}
"""


def test_every_value_keeps_its_type(tmp_path):
    file = tmp_path / "flow.dag.yaml"
    file.write_text(TEXT)
    before, promptflow = read_dag_file(file), load_as_promptflow(file)
    assert before == promptflow
    write_dag_file(file, before)
    assert read_dag_file(file) == before == load_as_promptflow(file)
    inputs = before["nodes"][0]["inputs"]
    assert (inputs["a"], inputs["b"], inputs["c"], inputs["e"]) == ("010", 10, "off", 1000.0)
    assert before["inputs"]["text"]["default"] == "yes"


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path):
    (tmp_path / "flow.dag.yaml").write_text("[1]")
    with pytest.raises(OpsError, match="is not a mapping"):
        read_dag_file(tmp_path / "flow.dag.yaml")
