"""`phi3 flow export --llm phi3` changes llm nodes and nothing else."""

from __future__ import annotations

from phi3_ops.publish.export_llm import with_llm_nodes_replaced
from phi3_tools.flow import load_flow

FLOW = """\
inputs: {text: {type: string, default: '1e3'}}
outputs: {text: {type: string, reference: '${answer.output}'}}
nodes:
- name: other
  type: python
  source: {type: code, path: other.py}
  inputs: {a: '010', b: 010, c: yes, d: '1e3'}
- name: answer
  type: llm
  source: {type: code, path: chat.jinja2}
  api: chat
  inputs: {text: '${inputs.text}'}
"""


def test_the_other_nodes_keep_their_values(tmp_path):
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "flow.dag.yaml").write_text(FLOW)
    with with_llm_nodes_replaced(tmp_path / "flow", "phi3") as folder:
        flow = load_flow(folder)
    values = {name: each.value for name, each in flow.node("other").inputs.items()}
    assert values == {"a": "010", "b": 10, "c": "yes", "d": "1e3"}
    assert flow.inputs["text"].default == "1e3"
