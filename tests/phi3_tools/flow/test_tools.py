"""Tools that cannot be loaded are refused, with the node, the field and the fix."""

from __future__ import annotations

from importlib import metadata

import pytest

from engine_parity import write_flow
from phi3_tools.flow import CustomConnection, Engine, FlowError, load_flow

CONNECTION = {"endpoint": "http://127.0.0.1:1", "key": "k"}
CLASS = (
    "from promptflow.core import ToolProvider, tool\n"
    "class A(ToolProvider):\n"
    "    def __init__(self, size: int):\n"
    "        super().__init__()\n"
    "        self.size = 1 // size\n"
    "    @tool\n"
    "    def a(self): ...\n"
)
TYPED = (
    "from promptflow.contracts.multimedia import Image\n"
    "from promptflow.connections import CustomConnection, OpenAIConnection\n"
    "from promptflow.core import tool\n"
    "@tool\n"
    "def typed(a: OpenAIConnection = None, b: CustomConnection = None, c: Image = None):\n"
    "    return b.name\n"
)
PROMPT = {"type": "package_with_prompt", "path": "p.jinja2"}


def refusal(folder, node, **files):
    content = {
        "inputs": {"x": {"type": "int"}},
        "outputs": {},
        "nodes": [{"name": "n", "type": "python", **node}],
    }
    with pytest.raises(FlowError) as refused:
        Engine(load_flow(write_flow(folder, content, **files)), {"phi3": CONNECTION})
    assert refused.value.node == "n"
    return refused.value.field, str(refused.value)


def code(path, **inputs):
    return {"source": {"type": "code", "path": path}, "inputs": inputs}


@pytest.mark.parametrize(
    ("node", "files", "field", "text"),
    [
        (code("a.py", size=0), {"a__py": CLASS}, "inputs", "A() failed: ZeroDivisionError"),
        (code("a.py", size="${inputs.x}"), {"a__py": CLASS}, "inputs.size", "needs a literal"),
        (code("t.py", a="phi3"), {"t__py": TYPED}, "inputs.a", "is a CustomConnection; the tool"),
        (code("t.py", c="x.png"), {"t__py": TYPED}, "inputs.c", "type image are not supported"),
        (code("t.txt"), {"t__txt": ""}, "source.path", "t.txt is not a Python file"),
        (
            {"type": "prompt", "source": {"type": "code", "path": "missing.jinja2"}},
            {},
            "source.path",
            "missing.jinja2 cannot be read: No such file or directory",
        ),
        (
            {"type": "custom_llm", "source": {**PROMPT, "tool": "phi3_tools.pf_tools.phi3_prompt"}},
            {"p__jinja2": "{{ seed }}"},
            "source.path",
            "the prompt has the variable 'seed', which is an input of the tool",
        ),
        (
            {"type": "custom_llm", "source": {**PROMPT, "tool": "phi3_tools.pf_tools.phi3_chat"}},
            {"p__jinja2": "{{ x }}"},
            "source.tool",
            "has no parameter of type PromptTemplate",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_it_is_refused(node, files, field, text, tmp_path):
    assert refusal(tmp_path, node, **files)[0] == field
    assert text in refusal(tmp_path, node, **files)[1]


def test_a_mapping_becomes_a_connection_with_its_name(tmp_path):
    content = {
        "inputs": {},
        "outputs": {"name": {"type": "string", "reference": "${n.output}"}},
        "nodes": [{"name": "n", "type": "python", **code("t.py", b="phi3")}],
    }
    folder = write_flow(tmp_path, content, t__py=TYPED)
    for connections in ({"phi3": CONNECTION}, lambda name: CustomConnection(name)):
        assert Engine(load_flow(folder), connections).run({}).outputs == {"name": "phi3"}


def test_the_advice_of_a_store_replaces_the_usual_one(tmp_path):
    class StoreError(Exception):
        what, fix = "connections.json is damaged", "Delete the file."

    def lookup(name):
        raise StoreError("connections.json is damaged. Delete the file.")

    content = {"inputs": {}, "nodes": [{"name": "n", "type": "python", **code("t.py", b="phi3")}]}
    with pytest.raises(FlowError, match="read: connections.json is damaged; delete the file$"):
        Engine(load_flow(write_flow(tmp_path, content, t__py=TYPED)), lookup)


def test_a_variable_of_a_connection_that_does_not_exist_is_refused(tmp_path):
    content = {"environment_variables": {"A": "${phi3.key}"}, "nodes": [code("a.py")]}
    content["nodes"][0] |= {"name": "n", "type": "python"}
    with pytest.raises(FlowError, match="the field 'key' of the connection 'phi3' cannot be read"):
        Engine(load_flow(write_flow(tmp_path, content)), {})


def test_a_package_whose_tools_cannot_be_listed_does_not_matter(tmp_path, monkeypatch, caplog):
    broken = metadata.EntryPoint("broken", "no_such_module:tools", "package_tools")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [broken])
    node = {"source": {"type": "package", "tool": "other.tool"}}
    assert "the tool other.tool is not installed" in refusal(tmp_path, node)[1]
    assert "the tools of broken cannot be listed" in caplog.text
