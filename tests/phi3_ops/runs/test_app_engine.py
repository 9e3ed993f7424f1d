"""`phi3 run --app`: exported code and workflows run over a file like a flow."""

from __future__ import annotations

import sys

import pytest

from phi3_ops import paths
from phi3_ops.cli import main
from phi3_ops.errors import OpsError
from phi3_ops.files import write_jsonl
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.publish.export import export_flow
from phi3_ops.runs.app_engine import AppEngine
from phi3_ops.runs.batch import run_app, run_flow
from phi3_ops.runs.store import read_run_folder

ROWS = [
    {"answer": "Paris", "ground_truth": "Paris", "more": 1},
    {"answer": "x", "ground_truth": ""},
]
COLUMNS = {"answer": "${data.answer}", "ground_truth": "${data.ground_truth}"}
MODULES = ("flow", "workflow", "evaluate", "score", "aggregate", "own_workflow")
# As Agent Framework's workflows behave.
OWN = """\
class Result:
    def __init__(self, outputs):
        self.outputs = outputs

    def get_outputs(self):
        return self.outputs


class Workflow:
    async def run(self, inputs):
        if inputs["answer"] == "x":
            raise ValueError("asked to fail")
        return Result(["step", {"answer": inputs["answer"].upper()}])


def create_workflow():
    return Workflow()
"""


@pytest.fixture(autouse=True)
def own_modules():
    """The modules of an export have common names: they are imported anew, and forgotten."""
    path = list(sys.path)
    others = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    yield
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, ROWS)
    return file


def test_an_export_runs_as_its_flow(data, tmp_path):
    export_flow(paths.FLOWS / "eval", "fastapi", tmp_path / "out")
    batch = run_app(str(tmp_path / "out"), data, {}, title="app")
    flow = run_flow(paths.FLOWS / "eval", data, COLUMNS, title="flow")
    ours, theirs = (find_stored_run(each.name) for each in (batch, flow))
    outputs, expected = read_run_folder(ours.folder), read_run_folder(theirs.folder)
    assert (outputs.rows, outputs.metrics) == (expected.rows, expected.metrics)
    assert ours.properties["phi3.app"] == str(tmp_path / "out")


def test_a_workflow_of_ones_own_runs_and_failures_are_lines(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_workflow.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["run", "--app", "own_workflow:create_workflow", "--data", str(data)]
    assert main([*words, "--max-failures", "1"]) == 0
    assert "2 lines, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere", "nowhere is not a folder"),
        ("no_such_module:f", "no_such_module cannot be imported"),
        ("json:nothing", "json has no function 'nothing'"),
    ],
)
def test_an_app_that_does_not_exist_is_named(app, message):
    with pytest.raises(OpsError, match=message):
        AppEngine(app)


def test_a_folder_without_exported_code_is_named(tmp_path):
    with pytest.raises(OpsError, match=r"has neither workflow.py nor flow.py"):
        AppEngine(str(tmp_path))


def test_options_of_flows_are_wrong_usage(data, capsys):
    assert main(["run", "--app", "a:b", "--flow", "qa", "--data", str(data)]) == 2
    assert main(["run", "--app", "a:b", "--engine", "promptflow", "--data", str(data)]) == 2
