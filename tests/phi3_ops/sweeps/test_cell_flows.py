"""The flow of a cell: one variant of each node, another prompt file, other inputs, included files."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.dag_file import read_dag_file
from phi3_ops.sweeps.cell_flows import PromptFlow
from phi3_ops.sweeps.config import PromptConfig

DAG = """
additional_includes: [../shared.txt]
inputs:
  question: {type: string}
outputs:
  answer: {type: string, reference: '${ask.output}'}
nodes:
- name: ask
  use_variants: true
- name: second
  type: custom_llm
  source: {type: package_with_prompt, path: second.jinja2, tool: phi3_tools.pf_tools.phi3_prompt}
  inputs: {connection: cells, question: '${inputs.question}'}
node_variants:
  ask:
    default_variant_id: short
    variants:
      short:
        node: &ask
          type: custom_llm
          source: {type: package_with_prompt, path: ask.jinja2, tool: phi3_tools.pf_tools.phi3_prompt}
          inputs: {connection: cells, question: '${inputs.question}', temperature: 0.0}
      long:
        node: {<<: *ask, inputs: {connection: cells, question: '${inputs.question}', temperature: 1.0}}
"""


@pytest.fixture
def prompt_flow(server, tmp_path):
    """Return a function that loads a prompt of a flow with variants and two prompt files."""
    folder = tmp_path / "flow"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(DAG)
    for name in ("ask", "second"):
        (folder / f"{name}.jinja2").write_text("user:\n{{question}}\n")
    (tmp_path / "shared.txt").write_text("shared")
    (tmp_path / "new.jinja2").write_text("user:\nnew {{question}}\n")

    def load(connection="cells", **fields):
        if "file" in fields:
            fields["file"] = tmp_path / fields["file"]
        return PromptFlow.load("p", PromptConfig(flow=str(folder), **fields), connection)

    return load


def written(prompt, tmp_path, **values):
    target = tmp_path / "written"
    prompt.write(prompt.settings(values), target)
    content = read_dag_file(target / "flow.dag.yaml")
    return target, content, {node["name"]: node for node in content["nodes"]}


@pytest.mark.parametrize(("variant", "temperature"), [(None, 0.0), ("ask.long", 1.0)])
def test_a_variant_becomes_the_node(prompt_flow, tmp_path, variant, temperature):
    target, content, nodes = written(prompt_flow(variant=variant), tmp_path)
    assert nodes["ask"]["inputs"]["temperature"] == temperature
    assert "use_variants" not in nodes["ask"]
    assert "node_variants" not in content and "additional_includes" not in content
    assert (target / "shared.txt").read_text() == "shared"


def test_values_replace_inputs_and_may_be_new(prompt_flow, tmp_path):
    prompt = prompt_flow(
        variant="ask.long", inputs={"ask.temperature": 0.2, "question": "${data.q}"}
    )
    settings = prompt.settings({"ask.top_p": 0.9})
    assert settings.flow_inputs == {"question": "${data.q}"}
    _, _, nodes = written(prompt, tmp_path, **{"ask.top_p": 0.9})
    assert nodes["ask"]["inputs"]["temperature"] == 0.2
    assert nodes["ask"]["inputs"]["top_p"] == 0.9
    assert "top_p" not in nodes["second"]["inputs"]


def test_a_name_that_several_nodes_have_is_refused(prompt_flow):
    with pytest.raises(OpsError, match="Write one of ask.temperature, second.temperature"):
        prompt_flow().settings({"temperature": 0.1})


def test_a_prompt_file_is_replaced(prompt_flow, tmp_path):
    target, _, _ = written(prompt_flow(file="new.jinja2", node="second"), tmp_path)
    assert "new" in (target / "second.jinja2").read_text()
    assert "new" not in (target / "ask.jinja2").read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "several nodes of .* have a prompt file. Set `node` to one of ask, second"),
        ({"node": "third"}, "the node 'third' of .* has no prompt file"),
    ],
)
def test_it_must_be_clear_which_prompt_file(prompt_flow, tmp_path, fields, message):
    with pytest.raises(OpsError, match=message):
        written(prompt_flow(file="new.jinja2", **fields), tmp_path)


def test_a_flow_without_a_connection_refuses_one(tmp_path):
    config = PromptConfig(flow="eval")
    with pytest.raises(
        OpsError, match="no node of eval uses a connection. Remove the connection 'x'"
    ):
        PromptFlow.load("p", config, "x")
