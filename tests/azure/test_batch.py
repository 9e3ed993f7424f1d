"""`phi3 run --on-azure` with the real SDK: the requests that it sends, and the outputs that it fetches.

The fake keeps the job in its queue. promptflow-parallel then runs the uploaded flow over the uploaded
data on this machine.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from azure_fixtures import WORKSPACE, one_line, plant
from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.pf.client import pf_client
from phi3_ops.remote_runs.outputs import MISSING_REASON
from phi3_ops.remote_runs.submission import FETCHED_FOLDER
from phi3_ops.runs.scored import load_scored_run

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
DRIVER = Path(__file__).resolve().parents[1] / "support" / "parallel_run.py"
QUESTIONS = ["one", "two", "three", "four", "five"]


class Batches:
    """A workspace with the connection, a data file, and the commands on it."""

    def __init__(self, azure, phi3, folder):
        self.azure, self.phi3, self.folder = azure, phi3, folder
        self.data = folder / "data.jsonl"
        self.flow = (
            folder / "qa"
        )  # a copy, because files that others leave in the shipped flow change the hash
        self.flow.mkdir()
        shutil.copy(paths.FLOWS / "qa" / "flow.dag.yaml", self.flow)
        self.ask(*QUESTIONS)

    def ask(self, *questions):
        rows = [{"question": each, "ground_truth": each} for each in questions]
        self.data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def run(self, *words):
        mapping = ("--column-mapping", "input_data=${data.question}")
        return self.phi3("run", "--flow", self.flow, "--data", self.data, *mapping, *words)

    def submitted(self, *words):
        """The name of the job that the command submits."""
        done = self.run("--on-azure", *words)
        assert done.code == 0, done.err
        return re.search(r"^job (\S+)$", done.out, re.MULTILINE).group(1)

    def sent(self, pattern):
        """Return the last request whose path matches, with placeholders for values that vary."""
        (*_, last) = (each for each in self.azure.writes() if re.search(pattern, each.path))
        text = json.dumps({"method": last.method, "path": last.path, "body": last.body})
        for volatile, placeholder in VOLATILE:
            text = re.sub(volatile, placeholder, text)
        return json.loads(text)

    def document(self, path):
        resources = self.azure.resources.items()
        (document,) = (value for key, value in resources if key.endswith(path.lower()))
        return document

    def execute(self, name, url):
        """Run a job on this machine, and set its status as Azure would."""
        from fake_azure import assets

        job = self.document(f"/jobs/{name}")["properties"]
        (node,) = job["jobs"].values()
        spec = self.document(node["componentId"].split("Microsoft.MachineLearningServices")[1])
        code = spec["properties"]["componentSpec"]["code"]
        folder = self.folder / name
        assets.fetch(self.azure, WORKSPACE, code, folder / "flow")
        assets.fetch(self.azure, WORKSPACE, job["inputs"]["data"]["uri"], folder / "data.jsonl")
        (folder / "out").mkdir()
        done = subprocess.run(
            [sys.executable, DRIVER, folder / "flow", folder / "data.jsonl", folder / "out"]
            + [str(node["mini_batch_size"]), str(1 + node["retry_settings"]["max_retries"])]
            + _arguments(node["inputs"]),
            env=self.azure.bare_environment({"AML_PROMPT_FLOW_CONNECTIONS": _connections(url)}),
            capture_output=True,
            text=True,
        )
        from fake_azure.storage import container_of

        self.azure.storage.put_folder(
            container_of(WORKSPACE), f"azureml/{name}/flow_outputs", folder / "out"
        )
        self.end(name, "Failed" if done.returncode else "Completed")
        return done

    def end(self, name, status):
        (run,) = (run for key, run in self.azure.runs.items() if key.endswith(f"/jobs/{name}"))
        run.status = status


def _arguments(inputs):
    """Return promptflow-parallel's arguments for the inputs of a component."""
    arguments, connections = [], []
    for name, value in inputs.items():
        if name.startswith("connections."):
            connections.append(f"{name.removeprefix('connections.')}={value['value']}")
        elif name != "data":
            arguments.append(f"--pf_input_{name}={value['value']}")
    return [*arguments, "--amlbi_pf_connections", ",".join(connections)]


def _connections(url):
    """Return the connections as the nodes get them: in the environment, resolved."""
    fields = {"endpoint": url, "key": KEY, "contract": "chat"}
    connection = {"type": "CustomConnection", "module": "promptflow.connections", "value": fields}
    text = json.dumps({"phi3": {**connection, "secret_keys": ["key"]}})
    return base64.b64encode(text.encode()).decode()


VOLATILE = (
    (r"11111111-1111-4111-8111-111111111111", "<subscription>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\bbatch-[0-9a-f]{12}\b", "batch-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b", "<hash>"),
)


@pytest.fixture
def batches(serving, queued_jobs, phi3, tmp_path):
    plant(serving.azure, "connections/phi3", {"properties": {"category": "CustomKeys"}})
    return Batches(serving.azure, phi3, tmp_path)


@pytest.fixture
def endpoint():
    with echo_endpoint() as server:
        yield server


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("batch-job", r"/jobs/batch-"),
        ("batch-component", r"/components/"),
        ("batch-environment", r"/environments/phi3-batch/"),
    ],
)
def test_the_requests(batches, name, pattern):
    """The request equals the golden file. PHI3_WRITE_GOLDEN=1 writes that file."""
    plant(batches.azure, "computes/cpu", {"properties": {"computeType": "AmlCompute"}})
    batches.submitted("--instances", 2, "--mini-batch-size", 2, "--retries", 1, "--compute", "cpu")
    file, sent = GOLDEN / f"{name}.json", batches.sent(pattern)
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(sent, indent=2) + "\n")
    assert sent == json.loads(file.read_text())


def test_a_second_run_finds_the_first(batches):
    name = batches.submitted()
    writes = len(batches.azure.writes())
    assert batches.submitted() == name
    assert len(batches.azure.writes()) == writes


def test_a_dry_run_changes_nothing(batches):
    done = batches.run("--on-azure", "--dry-run")
    assert done.code == 0
    assert "would submit job batch-" in done.out
    assert batches.azure.writes() == []


def test_a_job_that_failed_is_submitted_again(batches):
    first = batches.submitted()
    batches.end(first, "Failed")
    assert batches.submitted() == f"{first}-2"


def test_the_answers_come_back_as_a_run(batches, endpoint):
    """Submitted, run on mini-batches, fetched, scored and compared."""
    name = batches.submitted("--mini-batch-size", 2)
    executed = batches.execute(name, endpoint.url)
    assert executed.returncode == 0, executed.stderr
    done = batches.run("--on-azure", "--mini-batch-size", 2, "--evaluate")
    assert done.code == 0, done.out + done.err
    assert f"{name}: 5 lines, 0 failed" in done.out
    assert len(endpoint.requests) == 5
    rows = _rows(FETCHED_FOLDER / name / "flow_outputs" / "output.jsonl")
    assert rows == [{"line_number": n, "answer": each} for n, each in enumerate(QUESTIONS)]
    compared = batches.phi3("compare", name, name)
    assert "exact_match" in compared.out, compared.err
    details = pf_client().get_details(name)
    assert list(details["outputs.answer"]) == QUESTIONS


def test_lines_that_are_missing_have_failed(batches, endpoint, monkeypatch):
    """A job fails while it is followed: its answers are fetched nevertheless."""
    batches.ask("one", "fail", "three", "four", "five")
    words = ("--on-azure", "--mini-batch-size", 2, "--retries", 1)
    name = batches.submitted(*words)
    assert batches.execute(name, endpoint.url).returncode == 1
    assert len([r for r in endpoint.requests if "fail" in json.dumps(r)]) == 2  # tried again
    batches.end(name, "Running")

    def fail(_, job):
        batches.end(job, "Failed")
        raise _failure()

    from azure.ai.ml.operations import JobOperations

    monkeypatch.setattr(JobOperations, "stream", fail)
    done = batches.run(*words, "--follow")
    assert done.code == 1
    assert "fetching the answers that it has" in done.err
    assert f"{name}: 5 lines, 2 failed" in done.out  # the mini-batch of the failed one
    assert MISSING_REASON in done.out
    again = batches.run("--fetch", name, "--max-failures", 2, "--evaluate")
    assert again.code == 0, again.err
    assert re.search(r"exact_match\s+0\.6000", again.out)  # over all five
    run = load_scored_run(name)
    assert sorted(run.errors) == [0, 1]
    assert sorted(run.scored.rows) == [2, 3, 4]


def _failure():
    from azure.ai.ml.exceptions import JobException

    return JobException(message="failed", no_personal_data_message="failed")


def test_a_missing_connection_is_named(batches):
    done = batches.run("--on-azure", "--connection", "other")
    one_line(done, "no connection 'other'", "phi3 connect --azure")
    assert batches.azure.writes() == []


def test_a_missing_cluster_is_named(batches):
    one_line(batches.run("--on-azure", "--compute", "none"), "no cluster 'none'", "phi3 provision")
    assert batches.azure.writes() == []


def test_a_running_job_is_not_fetched(batches):
    name = batches.submitted()
    assert "--follow" in batches.run("--on-azure").out
    done = batches.run("--fetch", name)
    one_line(done, f"the job {name} is Queued")


def test_another_jobs_outputs_are_refused(batches):
    name = batches.submitted()
    batches.ask("other")
    done = batches.run("--fetch", name)
    one_line(done, f"the job {name} ran another flow or other data")


def test_a_job_that_does_not_exist(batches):
    done = batches.run("--fetch", "no-job")
    one_line(done, "the job no-job does not exist")


def test_an_empty_data_file(batches):
    batches.data.write_text("")
    one_line(batches.run("--on-azure"), "is empty")


def test_the_name_of_a_port_is_refused(batches):
    file = batches.flow / "flow.dag.yaml"
    file.write_text(file.read_text().replace("input_data", "data"))
    files = ("--flow", batches.flow, "--data", batches.data)
    mapping = ("--column-mapping", "data=${data.question}")
    one_line(batches.phi3("run", *files, *mapping, "--on-azure"), "the input 'data'", "Rename")


@pytest.mark.parametrize("word", ["--replay", "--resume", "--run"])
def test_options_for_this_machine_only(phi3, word):
    words = [word] if word == "--replay" else [word, "x"]
    done = phi3("run", "--flow", "qa", "--data", "d.jsonl", "--on-azure", *words)
    assert done.code == 2


def _rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]
