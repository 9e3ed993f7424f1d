"""The limited engine leaves the runs that Prompt flow's own engine leaves, and obeys its limit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.pf import expectations
from phi3_ops.pf.client import prepare
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.engine import MAX_LINE_RUNS, failed_with
from phi3_ops.pf.run_types import PROMPTFLOW
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.runs.batch import run_flow
from phi3_tools import RateLimitedError
from slow_endpoint import slow_endpoint

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
        raise ValueError("asked to fail")
    return {"text": text, "number": number, "when": when}
"""
COLUMNS = {name: f"${{data.{name}}}" for name in ("text", "number", "when")}
ROWS = [
    {"text": "häuser \U0001f600", "number": 0.1, "when": "x"},
    {"text": "fail", "number": 1.5, "when": "y"},
    {"text": "", "number": -2.25, "when": "z"},
]
# Keys of a record whose values differ between any two runs.
VOLATILE = {
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
    return find_stored_run(
        run_flow(flow, data, COLUMNS, title="echo", engine=PROMPTFLOW).name
    ).folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_volatile(value):
    if isinstance(value, dict):
        return {key: without_volatile(inner) for key, inner in value.items() if key not in VOLATILE}
    return [without_volatile(inner) for inner in value] if isinstance(value, list) else value


def records(folder):
    by_path = {}
    for file in sorted(folder.glob("*_artifacts/**/*.jsonl")):
        (record,) = lines(file)
        record = without_volatile(record)
        # The traceback of a failed line contains the engine.
        (record["run_info"]["error"] or {}).pop("debugInfo", None)
        for info in (record["run_info"]["error"] or {}).get("additionalInfo", []):
            info["info"].pop("traceback")
        by_path[file.relative_to(folder).as_posix()] = record
    return by_path


def test_records_are_those_of_the_stock_engine(flow, tmp_path, monkeypatch):
    data = write(tmp_path / "data.jsonl", ROWS)
    ours = run(flow, data)
    monkeypatch.setattr(expectations, "version", lambda package: "1.19.0")
    stock = run(flow, data)
    assert records(ours) == records(stock)
    assert len(records(ours)) == 6
    for name in ("inputs.jsonl", "outputs.jsonl", "flow_outputs/output.jsonl", "metrics.json"):
        assert lines(ours / name) == lines(stock / name), name


def test_data_reaches_the_flow_unchanged(flow, tmp_path):
    exact = {"text": "007", "number": 0.12345678901234567, "when": "2024-01-02T03:04:05Z"}
    # pandas converts a column of this name to a date.
    rows = [{"text": r["text"], "number": r["number"], "created_at": r["when"]} for r in [exact]]
    data = write(tmp_path / "data.jsonl", rows)
    columns = {**COLUMNS, "when": "${data.created_at}"}
    done = run_flow(flow, data, columns, title="exact", engine=PROMPTFLOW)
    assert done.answers == {0: exact}
    folder = find_stored_run(done.name).folder
    assert lines(folder / "outputs.jsonl") == [{**exact, "line_number": 0}]


def test_a_line_without_a_column_fails_alone(flow, tmp_path):
    rows = [ROWS[0], {"text": "a", "when": "b"}]
    done = run_flow(
        flow, write(tmp_path / "data.jsonl", rows), COLUMNS, title="gap", engine=PROMPTFLOW
    )
    assert list(done.answers) == [0] and "number" in done.reason


# -- 429 and errors of the engine ------------------------------------------------------------------


@pytest.fixture
def endpoint(request):
    fields = {"contract": "chat", "max_attempts": "1"}
    with slow_endpoint(*getattr(request, "param", (0.01,))) as server:
        save_connection("engine", {"endpoint": server.url, **fields}, "key")
        yield server
        delete_connection("engine")


def ask(tmp_path, *questions):
    data = write(tmp_path / "questions.jsonl", [{"question": each} for each in questions])
    connections = {"answer": {"connection": "engine"}}
    columns = {"input_data": "${data.question}"}
    return run_flow(
        paths.FLOWS / "qa", data, columns, title="t", connections=connections, engine=PROMPTFLOW
    )


@pytest.mark.parametrize("endpoint", [(0.01, 0)], indirect=True)  # refuses every call with a 429
def test_a_line_that_meets_only_429s_is_run_a_few_times(endpoint, tmp_path):
    done = ask(tmp_path, "a", "b")
    assert done.failed == 2 and "too many requests" in done.reason
    assert endpoint.refused == 2 * MAX_LINE_RUNS


def test_an_error_of_the_engine_itself_ends_the_run(endpoint, tmp_path, monkeypatch):
    from promptflow._proxy._python_executor_proxy import PythonExecutorProxy

    async def broken(*args):
        raise RuntimeError("broken inside")

    prepare()
    monkeypatch.setattr(PythonExecutorProxy, "exec_line_async", broken)
    with pytest.raises(OpsError, match="broken inside"):
        ask(tmp_path, "a")


TOOL_ERROR = {"code": "ToolExecutionError", "innerError": None}
PHI3_ERROR = {"code": "SystemError", "innerError": {"code": "Phi3SystemError"}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        ({}, False),
        ({"code": "UserError", "message": "RateLimitedError: in a message"}, False),
        ({**PHI3_ERROR, "innerError": {"code": "ServerError", "innerError": None}}, False),
        ({**PHI3_ERROR, "innerError": {"code": "RateLimitedError", "innerError": None}}, True),
        ({**TOOL_ERROR, "additionalInfo": [{"info": {"type": "RateLimitedError"}}]}, True),
        ({**TOOL_ERROR, "additionalInfo": [{"info": {"type": "ValueError"}}, {}]}, False),
        ({**TOOL_ERROR, "additionalInfo": None}, False),
    ],
)
def test_the_class_of_a_lines_error_is_read_as_data(error, expected):
    line = SimpleNamespace(run_info=SimpleNamespace(error=error))
    assert failed_with(line, RateLimitedError) is expected
