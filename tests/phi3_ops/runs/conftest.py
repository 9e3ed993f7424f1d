"""An endpoint that echoes its questions, with the connection `runs`; data files; flows in the store."""

from __future__ import annotations

import json
import re

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.flows.content import copy_flow
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.runs.batch import run_flow


@pytest.fixture
def server():
    with echo_endpoint() as server:
        save_connection("runs", {"endpoint": server.url, "contract": "chat"}, KEY)
        yield server
        delete_connection("runs")


@pytest.fixture
def write_questions(tmp_path):
    """Return a function that writes a data file with questions, and returns its path."""

    def write(*questions):
        rows = [
            {"question": question, "ground_truth": "right", "kind": "odd" if n % 2 else "even"}
            for n, question in enumerate(questions)
        ]
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write


@pytest.fixture
def copy_of_qa():
    """Return a function that copies flows/qa to a folder, with a version of its own."""

    def copy(folder, version):
        flow = copy_flow(paths.FLOWS / "qa", folder)
        yaml = flow / "flow.dag.yaml"
        text = yaml.read_text(encoding="utf-8")
        yaml.write_text(re.sub(r"version: .*", f"version: {version}", text), encoding="utf-8")
        return flow

    return copy


@pytest.fixture
def ask():
    """Return a function that runs a flow like flows/qa over a data file."""

    def ask(flow, data, connection="runs", **options):
        connections = {"answer": {"connection": connection}} if connection else None
        columns = {"input_data": "${data.question}"}
        return run_flow(flow, data, columns, title="t", connections=connections, **options)

    return ask
