"""Downloaded outputs are assigned to lines, and become a run of Prompt flow's store."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from azure.ai.ml._artifacts._blob_storage_helper import BlobStorageClient

from phi3_ops.errors import OpsError
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.remote_runs.outputs import (
    MISSING_REASON,
    Download,
    add_downloaded_run,
    downloads_stay_inside,
    pop_line_number,
    read_cluster_outputs,
    write_downloaded_run,
)
from phi3_ops.remote_runs.request import BatchRequest
from phi3_ops.runs.properties import ConnectionFacts, RunProperties
from phi3_ops.runs.store import read_run_folder


class Container:
    """A blob container with one blob of any name."""

    def __init__(self, name):
        self.name = name

    def list_blobs(self, name_starts_with, include=None):
        return [SimpleNamespace(name=f"{name_starts_with}/{self.name}", metadata={})]

    def download_blob(self, blob):
        return SimpleNamespace(size=1, content_as_bytes=lambda max_concurrency: b"x")


@pytest.mark.parametrize("name", ["../escaped.txt", "a/../../escaped.txt", "ok.txt"])
def test_a_blob_outside_the_folder_is_refused(tmp_path, name):
    client = object.__new__(BlobStorageClient)
    client.container_client = Container(name)
    client.account_name = client.container = "c"
    inside = name == "ok.txt"
    expected = nullcontext() if inside else pytest.raises(OpsError, match="outside the folder")
    with downloads_stay_inside(), expected:
        client.download(starts_with="outputs", destination=tmp_path / "folder")
    assert {path.name for path in tmp_path.rglob("*.txt")} == ({"ok.txt"} if inside else set())


ROWS = [{"question": "one"}, {"question": "two"}, {"question": "three"}]


def write(file, rows):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


FILE = "000000-0123.jsonl"


@pytest.mark.parametrize("rows", [[{"output": {}}], [{"line_number": 7}], [{"line_number": "0"}]])
def test_a_row_without_a_line_of_the_data_file_is_refused(tmp_path, rows):
    write(tmp_path / FILE, rows)
    with pytest.raises(OpsError, match=f"{FILE}: `line_number` is"):
        read_cluster_outputs(tmp_path, 2)


def test_an_answer_counts_more_than_an_error(tmp_path):
    answer = {"line_number": 0, "output": {"a": "0"}, "tokens": {"total_tokens": 3}}
    error = {"line_number": 0, "error": "failed", "tokens": {"total_tokens": 1}}
    write(tmp_path / "000000-a.jsonl", [error, {"line_number": 1, "error": "failed"}])
    write(tmp_path / "000000-b.jsonl", [answer])
    write(tmp_path / "000000-c.jsonl", [error, {"line_number": 2, "error": None}])
    download = read_cluster_outputs(tmp_path, 3)
    assert download.answers == {0: {"a": "0"}}
    assert download.errors == {1: "failed", 2: MISSING_REASON}
    assert download.token_counts == {"total_tokens": 3}


def test_a_file_that_a_killed_process_wrote_is_skipped(tmp_path):
    write(tmp_path / "0" / "1.json", [{"line_number": 1, "output": {"a": "1"}}])
    (tmp_path / "0" / "0.json").write_text('{"line_number": 0, "outp')
    assert read_cluster_outputs(tmp_path, 2).answers == {1: {"a": "1"}}


def test_the_line_number_is_removed_from_the_row():
    row = {"line_number": 1, "a": "1"}
    assert pop_line_number(row, 2, "a file") == 1
    assert row == {"a": "1"}


def test_a_line_without_an_answer_has_failed(files, request_for):
    download = Download({0: {"answer": "1"}}, errors={1: "the endpoint refused"})
    write_downloaded_run(files / "run", request_for(BatchRequest), ROWS, download)
    outputs = read_run_folder(files / "run")
    assert outputs.rows == {0: {"answer": "1"}}
    assert outputs.errors == {1: "the endpoint refused", 2: MISSING_REASON}
    assert outputs.inputs == {n: {"input_data": row["question"]} for n, row in enumerate(ROWS)}
    assert outputs.facts["flow"] == "phi3-qa"


def test_a_run_is_added_with_the_facts_of_the_workspace(files, request_for):
    request, name = request_for(BatchRequest), f"downloaded-{os.getpid()}"
    write_downloaded_run(files / "run", request, ROWS, Download({0: {"answer": "one"}}))
    endpoints = {"answer": ConnectionFacts("phi3", endpoint="host/score")}
    add = lambda tokens: add_downloaded_run(  # noqa: E731
        name, files / "run", request, endpoints=endpoints, token_counts={"total_tokens": tokens}
    )
    add(54)
    add(99)  # the store has it already
    run = find_stored_run(name)
    properties = RunProperties.from_properties(run.properties)
    assert (run.title, run.data) == ("qa", files / "data.jsonl")
    assert properties.endpoints == endpoints and properties.token_counts == {"total_tokens": 54}
    assert properties.flow_sha256 == RunProperties.of_flow(files / "qa").flow_sha256
    assert list(pf_client().get_details(name)["outputs.answer"]) == ["one", "(Failed)", "(Failed)"]
