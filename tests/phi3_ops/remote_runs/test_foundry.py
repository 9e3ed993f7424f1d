"""Runs in a Foundry project, without one: the hash of their content, and the records of their lines."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.remote_runs.foundry import METADATA, MISSING_REASON, _run_error, read_download

OTHERS = (
    {"title": "again"},
    {"columns": {"input_data": "constant"}},
    {"connections": {"answer": {"connection": "other"}}},
)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda each: next(iter(each)))
def test_other_settings_are_another_run(on_foundry, settings):
    assert on_foundry().digest == on_foundry(in_flight=1).digest
    assert on_foundry().digest != on_foundry(**settings).digest


@pytest.mark.parametrize("name", ["data.jsonl", "qa/flow.dag.yaml"])
def test_other_content_is_another_run(on_foundry, files, name):
    before = on_foundry().digest
    text = (files / name).read_text()
    (files / name).write_text(text.replace("question", "answer"))
    assert on_foundry().digest != before


def record(line, status="Completed", **run):
    return json.dumps({"line_number": line, "run_info": {"status": status, **run}}) + "\n"


@pytest.mark.parametrize("folder", ["flow_artifacts/", ""])
def test_the_records_of_the_lines(tmp_path, folder):
    """A file has several records. An older runtime writes the files to the top folder."""
    file = tmp_path / f"{folder}000000000_000000024.jsonl"
    file.parent.mkdir(exist_ok=True)
    failed = {"output": None, "error": {"message": "no"}}
    file.write_text(
        record(2, output={"a": 2}) + record(0, "Failed", **failed) + record(1, "Canceled")
    )
    download = read_download(tmp_path, 4)
    assert download.answers == {2: {"a": 2}}
    assert [download.errors[line] for line in (0, 1, 3)] == [
        "no",
        "the line is Canceled",
        MISSING_REASON,
    ]


@pytest.mark.parametrize("line", [4, -1, "0", None])
def test_a_record_without_a_line_of_the_data_file_is_refused(tmp_path, line):
    (tmp_path / "0_24.jsonl").write_text(record(line, output={}))
    with pytest.raises(OpsError, match="0_24.jsonl: `line_number` is"):
        read_download(tmp_path, 4)


def test_files_that_are_written_again_are_deleted(tmp_path):
    for name in ("snapshot/flow.dag.yaml", "flow_outputs/output.jsonl", "logs.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert read_download(tmp_path, 1).files == tmp_path
    assert [file.name for file in tmp_path.iterdir()] == ["logs.txt"]


@pytest.mark.parametrize(
    ("properties", "counts"),
    [
        (
            {"prompt_tokens": "11", "total_tokens": 18, "other": "1"},
            [("prompt_tokens", 11), ("total_tokens", 18)],
        ),
        ({"total_tokens": "many"}, []),
        (None, []),
    ],
)
def test_the_tokens_of_a_run(on_foundry, tmp_path, properties, counts):
    stored = properties and {f"azureml.promptflow.{key}": each for key, each in properties.items()}
    (tmp_path / METADATA).write_text(json.dumps({"properties": stored}))
    assert list(on_foundry().token_counts(tmp_path).items()) == counts


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"error": {"message": "no  session\nstarted"}}, "is Failed: no session started"),
        ({}, "is Failed: Azure does not say why"),
        (None, "is Failed: Azure does not say why"),
    ],
)
def test_azures_reason_is_one_line(error, message):
    run = SimpleNamespace(name="r", status="Failed", _error=error, _portal_url="https://portal")
    assert message in _run_error(run).what and _run_error(run).fix == "See https://portal."


@pytest.mark.finding(
    5,
    "an artifact of a run on Azure has a name that leads out of the folder",
    "the download is refused, and nothing is written",
)
def test_an_artifact_outside_the_folder_is_refused(on_foundry, tmp_path, monkeypatch):
    class Downloader:
        async def _download_artifacts_and_snapshot(self, client):
            await self._download_single_blob(None, tmp_path / "run" / ".." / "escaped.txt")

        async def _download_single_blob(self, blob, path=None):
            path.write_text("escaped")

    submission = on_foundry()
    submission.project.client = SimpleNamespace(runs=None)
    module = "promptflow.azure.operations._async_run_downloader.AsyncRunDownloader"
    monkeypatch.setattr(f"{module}._from_run_operations", lambda *arguments: Downloader())
    with pytest.raises(OpsError, match="a file of the run r: .* is outside the folder"):
        asyncio.run(submission._download_artifacts("r", tmp_path / "run"))
    assert not (tmp_path / "escaped.txt").exists()


@pytest.mark.parametrize("name", ["../../x", ".."])
def test_a_run_is_not_fetched_to_another_folder(on_foundry, name, monkeypatch):
    submission = on_foundry()
    monkeypatch.setattr(submission, "status", lambda name: "Completed")
    with pytest.raises(OpsError, match="^the run's name: .* is not a valid name"):
        submission.fetch(name)
