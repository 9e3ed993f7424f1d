"""What replaces parts of promptflow's engine leaves the runs that the stock engine leaves."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_ops.pf.client import pf_client
from phi3_ops.pf.engine import _BATCH, EXPECTED, SAME, _once, _serializer, engine_is_supported
from phi3_ops.runs.batch import run_flow

FLOW = """\
inputs:
  text: {type: string}
  number: {type: double}
  when: {type: string}
outputs:
  text: {type: string, reference: "${echo.output.text}"}
  number: {type: double, reference: "${echo.output.number}"}
  when: {type: string, reference: "${echo.output.when}"}
nodes:
- name: echo
  type: python
  source: {type: code, path: echo.py}
  inputs: {text: "${inputs.text}", number: "${inputs.number}", when: "${inputs.when}"}
"""
TOOL = """\
from promptflow.core import tool


@tool
def echo(text: str, number: float, when: str) -> dict:
    if text == "fail":
        raise ValueError("told to fail")
    return {"text": text, "number": number, "when": when}
"""
COLUMNS = {name: f"${{data.{name}}}" for name in ("text", "number", "when")}
ROWS = [
    {"text": "häuser \U0001f600", "number": 0.1, "when": "x"},
    {"text": "fail", "number": 1.5, "when": "y"},
    {"text": "", "number": -2.25, "when": "z"},
]
# Of a record: what no two runs share.
OWN = {
    "run_id",
    "flow_run_id",
    "root_run_id",
    "parent_run_id",
    "start_time",
    "end_time",
    "duration",
}


@pytest.fixture
def flow(tmp_path):
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(FLOW)
    (folder / "echo.py").write_text(TOOL)
    return folder


def run(flow, data):
    return Path(pf_client().runs.get(run_flow(flow, data, COLUMNS, title="echo").name)._output_path)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_own(value):
    if isinstance(value, dict):
        return {key: without_own(inner) for key, inner in value.items() if key not in OWN}
    return [without_own(inner) for inner in value] if isinstance(value, list) else value


def records(folder):
    found = {}
    for file in sorted(folder.glob("*_artifacts/**/*.jsonl")):
        (record,) = lines(file)
        record = without_own(record)
        # The stack of a failed line goes through the engine.
        (record["run_info"]["error"] or {}).pop("debugInfo", None)
        for info in (record["run_info"]["error"] or {}).get("additionalInfo", []):
            info["info"].pop("traceback")
        found[file.relative_to(folder).as_posix()] = record
    return found


def test_records_are_those_of_the_stock_engine(flow, tmp_path, monkeypatch):
    data = write(tmp_path / "data.jsonl", ROWS)
    ours = run(flow, data)
    monkeypatch.setitem(EXPECTED, f"{_BATCH}._exec_batch", ["other"])
    stock = run(flow, data)
    assert records(ours) == records(stock)
    assert len(records(ours)) == 6
    for name in ("inputs.jsonl", "outputs.jsonl", "flow_outputs/output.jsonl", "metrics.json"):
        assert lines(ours / name) == lines(stock / name), name


def test_data_reaches_the_flow_as_it_is(flow, tmp_path):
    exact = {"text": "007", "number": 0.12345678901234567, "when": "2024-01-02T03:04:05Z"}
    # pandas takes a column of such a name for a date.
    rows = [{"text": r["text"], "number": r["number"], "created_at": r["when"]} for r in [exact]]
    data = write(tmp_path / "data.jsonl", rows)
    columns = {**COLUMNS, "when": "${data.created_at}"}
    done = run_flow(flow, data, columns, title="exact")
    assert done.answers == {0: exact}
    folder = Path(pf_client().runs.get(done.name)._output_path)
    assert lines(folder / "outputs.jsonl") == [{**exact, "line_number": 0}]


def test_a_line_without_a_column_fails_alone(flow, tmp_path):
    rows = [ROWS[0], {"text": "a", "when": "b"}]
    done = run_flow(flow, write(tmp_path / "data.jsonl", rows), COLUMNS, title="gap")
    assert list(done.answers) == [0] and "number" in done.reason


def test_tools_are_those_that_promptflow_lists():
    pf_client()
    from promptflow._core import tools_manager

    for keys in (
        ["phi3_tools.pf_tools.phi3_chat"],
        ["phi3_tools.pf_tools.phi3_chat", "promptflow.tools.open_model_llm.OpenModelLLM.call"],
        # listed by a package whose name does not begin the key: as a tool's former name is
        ["embeddingstore.tool.vector_index_lookup.search"],
        ["no.such.tool"],
        [],
    ):
        assert _once(tools_manager)(keys) == tools_manager.collect_package_tools(keys)


def test_only_the_packages_of_the_keys_are_read(monkeypatch):
    pf_client()
    from promptflow._core import tools_manager

    read = []
    collect = tools_manager.collect_package_tools
    points = tools_manager._get_entry_points_by_group

    def seen(keys):
        read.append([p.module for p in tools_manager._get_entry_points_by_group("package_tools")])
        return collect(keys)

    monkeypatch.setattr(tools_manager, "collect_package_tools", seen)
    listed = _once(tools_manager)
    first, second = (listed(["phi3_tools.pf_tools.phi3_chat"]) for _ in range(2))
    assert read == [["phi3_tools.pf_tools"]]
    assert first == second and first is not second
    assert tools_manager._get_entry_points_by_group is points


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Record:
    value: object
    nothing: object = None


class Model(pydantic.BaseModel):
    value: int


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
special = (
    st.datetimes()
    | st.sampled_from(Colour)
    | st.builds(Model, value=st.integers())
    | st.tuples(st.text())
    | st.binary()
)
values = st.recursive(
    plain | special,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Record, value=inner)
    ),
)


@given(values, st.booleans())
def test_values_are_written_as_promptflow_writes_them(value, remove_null):
    pf_client()
    from promptflow.tracing._utils import serialize

    assert _serializer(serialize)(value, remove_null) == serialize(value, remove_null)


def test_what_is_to_be_written_by_a_function_of_its_own_is():
    pf_client()
    from promptflow.tracing._utils import serialize

    own = {datetime.date: lambda value: value.year}
    value = {"a": [datetime.date(2024, 1, 2), "b", math.pi]}
    assert _serializer(serialize)(value, False, own) == {"a": [2024, "b", math.pi]}


@pytest.mark.parametrize("part", [*EXPECTED, *SAME])
def test_a_part_that_is_gone_is_seen(part, monkeypatch):
    assert engine_is_supported()
    table = EXPECTED if part in EXPECTED else SAME
    monkeypatch.setitem(table, part + "_of_another_version", table[part])
    assert not engine_is_supported()
    monkeypatch.delitem(table, part + "_of_another_version")
    monkeypatch.setitem(table, part, ["other"])
    assert not engine_is_supported()
