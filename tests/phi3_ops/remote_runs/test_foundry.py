"""Runs in a Foundry project, without one: what makes two of them the same, and what their records say."""

from __future__ import annotations

import json

import pytest

from phi3_ops import paths
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.remote_runs.foundry import LOST, FoundrySubmission, downloaded_outputs
from phi3_ops.remote_runs.submission import BatchRequest


def _submission(folder, **settings):
    where = {"subscription_id": "0" * 36, "resource_group": "rg", "workspace": "work"}
    cloud = Cloud(Config.model_validate({"azure": where}), credential=object())
    columns = settings.pop("columns", {"input_data": "${data.question}"})
    flow, settings = FlowDefinition.read(folder / "qa"), {"title": "qa", **settings}
    request = BatchRequest(flow, folder / "data.jsonl", columns, **settings)
    return FoundrySubmission(cloud, request)


@pytest.fixture
def files(tmp_path):
    copy_flow(paths.FLOWS / "qa", tmp_path / "qa")
    (tmp_path / "data.jsonl").write_text('{"question": "one"}\n')
    return tmp_path


OTHERS = (
    {"title": "again"},
    {"columns": {"input_data": "constant"}},
    {"connections": {"answer": {"connection": "other"}}},
)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda each: next(iter(each)))
def test_other_settings_are_another_run(files, settings):
    assert _submission(files).digest == _submission(files, in_flight=1).digest
    assert _submission(files).digest != _submission(files, **settings).digest


@pytest.mark.parametrize("name", ["data.jsonl", "qa/flow.dag.yaml"])
def test_other_content_is_another_run(files, name):
    before = _submission(files).digest
    text = (files / name).read_text()
    (files / name).write_text(text.replace("question", "answer"))
    assert _submission(files).digest != before


def record(line, status="Completed", **run):
    return json.dumps({"line_number": line, "run_info": {"status": status, **run}}) + "\n"


@pytest.mark.parametrize("place", ["flow_artifacts/", ""])
def test_the_records_of_the_lines(tmp_path, place):
    """Some in a file; in a folder of their own or, of an older runtime, at the top."""
    file = tmp_path / f"{place}000000000_000000024.jsonl"
    file.parent.mkdir(exist_ok=True)
    failed = {"output": None, "error": {"message": "no"}}
    file.write_text(
        record(2, output={"a": 2}) + record(0, "Failed", **failed) + record(1, "Canceled")
    )
    found = downloaded_outputs(tmp_path, 4)
    assert found.answers == {2: {"a": 2}}
    assert [found.errors[line] for line in (0, 1, 3)] == [
        "no",
        "the line is Canceled",
        LOST,
    ]


@pytest.mark.parametrize("line", [4, -1, "0", None])
def test_a_record_of_no_line_is_refused(tmp_path, line):
    (tmp_path / "0_24.jsonl").write_text(record(line, output={}))
    with pytest.raises(OpsError, match="0_24.jsonl: `line_number` is"):
        downloaded_outputs(tmp_path, 4)
