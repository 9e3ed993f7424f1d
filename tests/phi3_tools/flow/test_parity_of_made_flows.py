"""A family of made flows in promptflow's own executor and in ours.

Types, defaults, references to properties, literals of wrong types, conditions, skipped inputs, prompt
nodes, generators, async nodes, errors, and aggregations of aggregations.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine_parity import assert_parity, write_flow
from exports import engine_result, exported
from phi3_ops.errors import OpsError
from phi3_tools.flow import Engine, FlowError, load_flow

TYPES = ["string", "int", "double", "bool", "list", "object"]
# The parameters have different kinds of annotations, because literals are converted to them.
TOOLS = {
    "plain__py": """
        from promptflow.core import tool

        @tool
        def plain(a, b="b", c: int = 3, d: dict = None):
            return {"a": a, "b": [b, c], "d": d, "e": str(a)}
        """,
    "typed__py": """
        from typing import Optional, Union
        from promptflow.core import tool

        @tool
        def typed(a: str, b: Optional[float] = None, c: bool = False, d: Union[int, str] = 1):
            return [a, b, c, d]
        """,
    "open__py": """
        from promptflow.core import tool

        @tool
        def anything(a: object = None, **kwargs):
            return {"a": a, "b": [sorted(kwargs)], "kwargs": kwargs}
        """,
    "strict__py": """
        from enum import Enum
        from promptflow.core import tool

        class Color(Enum):
            RED = "red"

        @tool
        def strict(a: list, b: Color = Color.RED):
            if not a:
                raise LookupError("a is empty")
            return a[0]
        """,
    "wait__py": """
        import asyncio
        from promptflow.core import tool

        @tool
        async def wait(a, b: int = 0):
            await asyncio.sleep(0)
            if a is None:
                raise TimeoutError("no a")
            return {"a": a, "b": [b]}
        """,
    "pieces__py": """
        from promptflow.core import tool

        @tool
        def pieces(a, b: str = "-"):
            for piece in str(a)[:3]:
                yield f"{piece}{b}"
        """,
    "total__py": """
        import re
        from promptflow.core import log_metric, tool

        @tool
        def total(a, b=None):
            log_metric("lines", len(a))
            log_metric("text", text(b))
            return {"a": text(a), "b": [b]}

        def text(value):
            return re.sub("0x[0-9a-f]+", "", str(value))  # addresses of generators
        """,
    "prompt__jinja2": "{{ a }}|{{ b.x }}|{% for each in c %}{{ each }}{% endfor %}\n",
}
PYTHON = ["plain.py", "typed.py", "open.py", "strict.py", "pieces.py"]
PROPERTIES = ["", ".a", ".b", ".b[0]", "['a']", ".a['x']", ".d.x", ".e.upper"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(
        [0.5, 1.0, "", "a", "true", "False", "7", "[1]", '{"x": 1}', "[1", "nan", "ü"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@st.composite
def assignments(draw, inputs, nodes):
    """Draw the value of a node's input: a literal, an input, or an earlier node's output."""
    choices = [values]
    if inputs:
        choices.append(st.sampled_from([f"${{inputs.{name}}}" for name in inputs]))
    if nodes:
        node = st.sampled_from(nodes)
        part = st.sampled_from(PROPERTIES)
        choices += [st.builds("${{{}.output{}}}".format, node, part)] * 2
    return draw(st.one_of(choices))


@st.composite
def nodes_of(draw, inputs, number, uses_async, earlier=(), aggregation=False):
    names = list(earlier)
    nodes = []
    for index in range(number):
        files = ["total.py"] if aggregation else [*PYTHON, "prompt.jinja2"]
        if uses_async and not aggregation:
            files.append("wait.py")
        file = draw(st.sampled_from(files))
        keys = draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=3))
        if draw(st.integers(0, 4)):
            keys = sorted({"a", *keys})
        if aggregation:
            keys = [key for key in keys if key in "ab"]
        node = {
            "name": f"{'sum' if aggregation else 'n'}{index}",
            "type": "prompt" if file.endswith("jinja2") else "python",
            "source": {"type": "code", "path": file},
            "inputs": {key: draw(assignments(inputs, names)) for key in keys},
        }
        if draw(st.integers(0, 3)) == 0:
            own = [name for name in names if name not in earlier] if aggregation else names
            when = draw(assignments(inputs, own))
            node["activate"] = {"when": when, "is": draw(values)}
        if aggregation:
            node["aggregation"] = True
        names.append(node["name"])
        nodes.append(node)
    return nodes


@st.composite
def flows(draw):
    names = draw(st.lists(st.sampled_from(["p", "q", "r"]), unique=True, max_size=3))
    inputs = {}
    for name in names:
        inputs[name] = {"type": draw(st.sampled_from(TYPES))}
        if draw(st.booleans()):
            inputs[name]["default"] = draw(values)
    uses_async = draw(st.integers(0, 3)) == 0
    nodes = draw(nodes_of(names, draw(st.integers(1, 5)), uses_async))
    line_names = [node["name"] for node in nodes]
    if draw(st.booleans()):
        number = draw(st.integers(1, 2))
        nodes += draw(nodes_of(names, number, False, line_names, aggregation=True))
    references = [f"${{{name}.output}}" for name in line_names]
    output = st.sampled_from(references) | assignments(names, line_names)
    outputs = {f"o{n}": {"type": "string", "reference": draw(output)} for n in range(2)}
    # promptflow sorts the nodes itself.
    return {"inputs": inputs, "outputs": outputs, "nodes": draw(st.permutations(nodes))}


@st.composite
def cases(draw):
    flow = draw(flows())
    line = st.fixed_dictionaries({}, optional=dict.fromkeys(flow["inputs"], values))
    good = st.fixed_dictionaries(dict.fromkeys(flow["inputs"], values))
    return flow, draw(st.lists(good | line, min_size=1, max_size=3))


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """promptflow logs and prints every node; that is most of its time."""
    import logging

    names = ("execution", "execution.flow", "execution.bulk")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@settings(
    phases=[Phase.generate],
    max_examples=60, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(cases())
def test_a_made_flow_has_the_same_outcome(case):
    flow, lines = case
    with tempfile.TemporaryDirectory() as folder:
        write_flow(Path(folder), flow, **TOOLS)
        try:
            assert_parity(Path(folder), lines)
        except AssertionError as error:
            raise AssertionError(f"{json.dumps(flow, indent=1)}\n{lines}\n{error}") from None


@settings(
    phases=[Phase.generate],
    max_examples=25, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(cases())
def test_the_export_of_a_made_flow_has_the_same_outcome(case):
    flow, lines = case
    with tempfile.TemporaryDirectory() as folder:
        source = write_flow(Path(folder, "flow"), flow, **TOOLS)
        try:
            engine = Engine(load_flow(source))
        except FlowError:
            with pytest.raises(OpsError), exported(source, "fastapi", Path(folder, "out")):
                pass
            return
        with engine, exported(source, "fastapi", Path(folder, "out")) as export:
            for values in lines:
                ours, wanted = export.run(values), engine_result(engine, values)
                text = f"{json.dumps(flow, indent=1)}\n{values}\n{ours}\n{wanted}"
                assert _is_same(ours, wanted), text


def _is_same(ours, wanted):
    """Compare outputs without addresses, and error codes. If several nodes fail, any may be first."""
    if isinstance(ours, dict) or isinstance(wanted, dict):
        texts = [re.sub("0x[0-9a-f]+", "", repr(each)) for each in (ours, wanted)]
        return texts[0] == texts[1]
    return ours[0] == wanted[0] or ours[2] != wanted[2]
