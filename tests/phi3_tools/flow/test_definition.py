"""Flows become dataclasses; what cannot run is refused in a line with node, field and fix."""

from __future__ import annotations

import pytest

from engine_parity import outcome_of_promptflow, write_flow
from phi3_ops import paths
from phi3_tools.flow import Engine, FlowError, load_flow

ECHO = "from phi3_tools.flow import tool\n@tool\ndef echo(text: str):\n    return text\n"


def definition(**changes):
    node = {
        "name": "echo",
        "type": "python",
        "source": {"type": "code", "path": "echo.py"},
        "inputs": {"text": "${inputs.text}"},
    }
    content = {
        "inputs": {"text": {"type": "string"}},
        "outputs": {"answer": {"type": "string", "reference": "${echo.output}"}},
        "nodes": [{**node, **changes.pop("node", {})}, *changes.pop("more", [])],
    }
    return {**content, **changes}


def refusal(folder, content, **files):
    write_flow(folder, content, echo__py=ECHO, **files)
    with pytest.raises(FlowError) as refused:
        Engine(load_flow(folder), {})
    assert "\n" not in str(refused.value)
    return refused.value


AGGREGATE = {
    "name": "sum",
    "type": "python",
    "aggregation": True,
    "source": {"type": "code", "path": "echo.py"},
    "inputs": {"text": "${echo.output}"},
}
# content, node, field, and what both say
REFUSED = {
    "unknown node": (
        definition(node={"inputs": {"text": "${nobody.output}"}}),
        "echo",
        "inputs.text",
        "the flow has no node 'nobody'; refer to one of the nodes echo",
    ),
    "unknown input": (
        definition(node={"inputs": {"text": "${inputs.txt}"}}),
        "echo",
        "inputs.text",
        "the flow has no input 'txt'; refer to one of the inputs text",
    ),
    "circle": (
        definition(node={"inputs": {"text": "${echo.output}"}}),
        None,
        "nodes",
        "the nodes echo need each other in a circle",
    ),
    "one name twice": (
        definition(more=[{**AGGREGATE, "name": "echo"}]),
        "echo",
        "name",
        "two nodes have this name",
    ),
    "aggregation in a line": (
        definition(node={"inputs": {"text": "${sum.output}"}}, more=[{**AGGREGATE, "inputs": {}}]),
        "echo",
        "inputs.text",
        "needs the aggregation node 'sum'",
    ),
    "condition of an aggregation": (
        definition(more=[{**AGGREGATE, "activate": {"when": "${echo.output}", "is": 1}}]),
        "sum",
        "activate.when",
        "refers to 'echo', which runs for each line",
    ),
    "half a condition": (
        definition(node={"activate": {"when": "${inputs.text}"}}),
        "echo",
        "activate",
        "write `when: ${node.output}` and `is: VALUE`",
    ),
    "unknown type": (
        definition(inputs={"text": {"type": "text"}}),
        None,
        "inputs.text.type",
        "the type 'text' does not exist; use one of int, double",
    ),
    "output of nothing": (
        definition(outputs={"answer": {"type": "string"}}),
        None,
        "outputs.answer.reference",
        "the reference is missing",
    ),
    "output of an unknown node": (
        definition(outputs={"answer": {"type": "string", "reference": "${nobody.output}"}}),
        None,
        "outputs.answer.reference",
        "the flow has no node 'nobody'",
    ),
    "output of an unknown input": (
        definition(outputs={"answer": {"type": "string", "reference": "${inputs.x}"}}),
        None,
        "outputs.answer.reference",
        "the flow has no input 'x'",
    ),
    "missing file": (
        definition(node={"source": {"type": "code", "path": "other.py"}}),
        "echo",
        "source.path",
        "other.py does not exist",
    ),
    "no source": (definition(node={"source": None}), "echo", "source", "the source is missing"),
    "no tool": (
        definition(node={"source": {"type": "code", "path": "empty.py"}}),
        "echo",
        "source.path",
        "must have exactly one tool, but has none",
    ),
    "two tools": (
        definition(node={"source": {"type": "code", "path": "two.py"}}),
        "echo",
        "source.path",
        "must have exactly one tool, but has a, b",
    ),
    "broken file": (
        definition(node={"source": {"type": "code", "path": "broken.py"}}),
        "echo",
        "source.path",
        "ZeroDivisionError: division by zero",
    ),
    "missing module": (
        definition(node={"source": {"type": "code", "path": "needs.py"}}),
        "echo",
        "source.path",
        "install the package that contains no_such_module",
    ),
    "unknown package tool": (
        definition(node={"source": {"type": "package", "tool": "no.such.tool"}}),
        "echo",
        "source.tool",
        "the tool no.such.tool is not installed",
    ),
    "wrong literal": (
        definition(node={"source": {"type": "code", "path": "number.py"}, "inputs": {"n": "many"}}),
        "echo",
        "inputs.n",
        "'many' is not a valid int",
    ),
    "unknown connection": (
        definition(
            node={
                "source": {"type": "package", "tool": "phi3_tools.pf_tools.phi3_chat"},
                "inputs": {"connection": "nobody"},
            }
        ),
        "echo",
        "inputs.connection",
        "the connection 'nobody' cannot be read",
    ),
    "broken prompt": (
        definition(node={"type": "prompt", "source": {"type": "code", "path": "broken.jinja2"}}),
        "echo",
        "source.path",
        "broken.jinja2 is not a valid template",
    ),
    "reserved variable": (
        definition(node={"type": "prompt", "source": {"type": "code", "path": "own.jinja2"}}),
        "echo",
        "source.path",
        "the reserved variable `template`",
    ),
}
FILES = {
    "empty__py": "",
    "two__py": "from promptflow.core import tool\n@tool\ndef a(): ...\n@tool\ndef b(): ...\n",
    "broken__py": "1 / 0\n",
    "needs__py": "import no_such_module\n",
    "number__py": "from promptflow.core import tool\n@tool\ndef f(n: int): ...\n",
    "broken__jinja2": "{% for %}",
    "own__jinja2": "{{ template }}",
}
# promptflow does not name these at all, or only when the line runs.
STRICTER = {"half a condition", "unknown type", "no source"}


@pytest.mark.parametrize("case", REFUSED)
def test_a_flow_that_cannot_run_is_refused_with_node_field_and_fix(case, tmp_path):
    content, node, field, text = REFUSED[case]
    error = refusal(tmp_path, content, **FILES)
    assert (error.node, error.field) == (node, field)
    assert text in str(error)
    if case not in STRICTER:
        connections = {}.__getitem__
        assert outcome_of_promptflow(tmp_path, [{}], connections).refused == error.code


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        (
            {"node": {"type": "llm"}},
            "connection",
            "the connection is missing; add `connection`",
        ),
        (
            {"node": {"type": "llm", "connection": "x", "api": "completion"}},
            "api",
            "the API 'completion' is not supported",
        ),
        ({"node": {"type": "csharp"}}, "type", "nodes of type 'csharp'"),
        ({"inputs": {"text": {"type": "image"}}}, "inputs.text.type", "image is not supported"),
        ({"language": "csharp"}, "language", "the language is csharp"),
        ({"entry": "flow:main"}, "entry", "is a flex flow"),
        ({"nodes": []}, "nodes", "has no nodes"),
        ({"additional_includes": ["../x"]}, "additional_includes", "does not exist"),
    ],
)
def test_what_the_engine_does_not_support_is_refused(changes, field, text, tmp_path):
    error = refusal(tmp_path, definition(**changes))
    assert error.field == field and text in str(error)


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2"])
def test_a_file_that_is_not_a_yaml_mapping_is_refused(text, tmp_path):
    (tmp_path / "flow.dag.yaml").write_text(text)
    with pytest.raises(FlowError, match=r"flow\.dag\.yaml (cannot be read|is not a mapping)"):
        load_flow(tmp_path)


def test_a_folder_without_a_flow_is_refused(tmp_path):
    with pytest.raises(FlowError, match="does not exist; give a folder with a flow.dag.yaml"):
        load_flow(tmp_path)


def test_a_variant_that_does_not_exist_is_refused():
    with pytest.raises(FlowError, match="the variant a.b does not exist; omit the variant"):
        load_flow(paths.FLOWS / "chat", "a.b")


def test_a_flow_has_its_parts():
    flow = load_flow(paths.FLOWS / "chat", None)
    assert (flow.name, flow.type, flow.folder) == ("chat", "chat", paths.FLOWS / "chat")
    assert (flow.chat_input, flow.chat_history) == ("question", "chat_history")
    assert flow.chat_output == "answer" and flow.streaming_nodes == ["chat"]
    assert flow.inputs["question"].default == "Who founded Microsoft?"
    (node,) = flow.nodes
    assert (node.kind, node.path, node.tool) == (
        "package",
        None,
        "phi3_tools.pf_tools.phi3_chat",
    )
    assert str(node.inputs["question"]) == "${inputs.question}"
    evaluation = load_flow(paths.FLOWS / "eval" / "flow.dag.yaml")
    assert [node.name for node in evaluation.aggregation_nodes] == ["aggregate"]
    assert evaluation.environment == {"python_requirements_txt": "requirements.txt"}


def test_included_files_are_in_the_flows_folder(tmp_path):
    write_flow(tmp_path / "shared", {}, echo__py=ECHO)
    (tmp_path / "shared" / "data").mkdir()
    (tmp_path / "shared" / "data" / "x.txt").write_text("x")
    includes = ["../shared/echo.py", "../shared/data"]
    folder = write_flow(tmp_path / "flow", definition(additional_includes=includes))
    flow = load_flow(folder)
    assert flow.name == "flow" and flow.folder != folder
    assert (flow.folder / "data" / "x.txt").read_text() == "x"
    assert Engine(flow).run({"text": "hello"}).outputs == {"answer": "hello"}
    assert not (folder / "echo.py").exists()
