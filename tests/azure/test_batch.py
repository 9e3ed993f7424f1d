"""`phi3 run --on-azure` with the real SDK: the requests that it sends, and batches that really run.

The fake runs the pipeline: worker processes get mini-batches, are killed and started again, and call the
endpoint with the connection of the workspace.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from azure_fixtures import one_line, plant
from echo_endpoint import KEY, USAGE, echo_endpoint
from phi3_ops import paths
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.remote_runs.outputs import MISSING_REASON
from phi3_ops.remote_runs.submission import FETCHED_FOLDER
from phi3_ops.runs.properties import RunProperties
from phi3_ops.runs.scored import load_scored_run
from polling import wait_until

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
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

    def end(self, name, status):
        """Set the status of a job that stays in the queue."""
        self.record(name).status = status

    def record(self, name):
        """Return the fake's record of a job."""
        (record,) = (run for key, run in self.azure.runs.items() if key.endswith(f"/jobs/{name}"))
        return record


CONNECTION = {"category": "CustomKeys", "authType": "CustomKeys"}
VOLATILE = (
    (r"11111111-1111-4111-8111-111111111111", "<subscription>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\bbatch-[0-9a-f]{12}\b", "batch-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b", "<hash>"),
)


def plant_connection(azure, url):
    fields = {"endpoint": url, "contract": "chat", "max_attempts": "1"}
    credentials = {"keys": {"key": KEY}}
    properties = {**CONNECTION, "metadata": fields, "credentials": credentials}
    plant(azure, "connections/phi3", {"properties": properties})


@pytest.fixture
def batches(serving, queued_jobs, phi3, tmp_path):
    """Batches whose jobs stay in the queue."""
    plant_connection(serving.azure, "https://example.org/score")
    return Batches(serving.azure, phi3, tmp_path)


@pytest.fixture
def endpoint():
    with echo_endpoint() as server:
        yield server


@pytest.fixture
def running(serving, phi3, tmp_path, endpoint):
    """Batches whose jobs run, and call the endpoint."""
    plant_connection(serving.azure, endpoint.url)
    return Batches(serving.azure, phi3, tmp_path)


def asked(endpoint, question):
    """Return how often a question was sent."""
    return sum(
        body["input_data"]["input_string"][-1]["content"] == question for body in endpoint.requests
    )


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


def test_the_answers_come_back_as_a_run(running, endpoint):
    """Submitted, run by several processes, followed, fetched, scored and compared."""
    words = ("--on-azure", "--mini-batch-size", 2, "--instances", 2, "--in-flight", 4)
    done = running.run(*words, "--follow", "--evaluate")
    assert done.code == 0, done.out + done.err
    name = re.search(r"^job (\S+)$", done.out, re.MULTILINE).group(1)
    assert f"{name}: 5 lines, 0 failed" in done.out
    assert [asked(endpoint, question) for question in QUESTIONS] == [1] * 5
    rows = _rows(FETCHED_FOLDER / name / "flow_outputs" / "output.jsonl")
    assert rows == [{"line_number": n, "answer": each} for n, each in enumerate(QUESTIONS)]
    properties = RunProperties.from_properties(find_stored_run(name).properties)
    assert properties.token_counts == {key: 5 * count for key, count in USAGE.items()}
    compared = running.phi3("compare", name, name)
    assert "exact_match" in compared.out, compared.err
    details = pf_client().get_details(name)
    assert list(details["outputs.answer"]) == QUESTIONS
    texts = [request.raw for request in running.azure.requests]
    assert not [text for text in texts if KEY.encode() in text]  # the key was not uploaded


def test_a_killed_process_asks_no_line_again(running, endpoint):
    """A process dies in the middle of a mini-batch; its lines that have an answer keep it."""
    running.ask("one", "two", "wait", "four", "five")
    words = ("--on-azure", "--mini-batch-size", 5, "--in-flight", 1)
    name = running.submitted(*words)
    wait_until(lambda: asked(endpoint, "wait"))
    step = running.record(name).step
    step.workers[0].kill()
    endpoint.released.set()
    done = running.run(*words, "--follow")
    assert done.code == 0, done.out + done.err
    assert f"{name}: 5 lines, 0 failed" in done.out
    assert len(step.workers) == 2
    counts = {question: asked(endpoint, question) for question in ("one", "two", "wait", "four")}
    assert counts == {"one": 1, "two": 1, "wait": 2, "four": 1}


def test_a_line_with_a_wrong_input_fails_alone(running, endpoint):
    running.ask("one", "fail", "three", "four", "five")
    done = running.run("--on-azure", "--mini-batch-size", 2, "--retries", 2, "--follow")
    assert done.code == 1
    assert "5 lines, 1 failed" in done.out and "told to fail" in done.out
    assert asked(endpoint, "fail") == 1  # no retry helps


def test_lines_that_the_endpoint_failed_are_retried_alone(running, endpoint):
    """A job fails, and its answers are fetched nevertheless."""
    running.ask("one", "crash", "three", "four", "five")
    words = ("--on-azure", "--mini-batch-size", 2, "--retries", 1)
    done = running.run(*words, "--follow")
    assert done.code == 1
    assert "fetching the answers that it has" in done.err
    name = re.search(r"^job (\S+)$", done.out, re.MULTILINE).group(1)
    assert f"{name}: 5 lines, 1 failed" in done.out and "told to crash" in done.out
    assert (asked(endpoint, "one"), asked(endpoint, "crash")) == (1, 2)
    again = running.run("--fetch", name, "--max-failures", 1, "--evaluate")
    assert again.code == 0, again.err
    assert re.search(r"exact_match\s+0\.8000", again.out)  # over all five
    run = load_scored_run(name)
    assert sorted(run.errors) == [1]
    assert sorted(run.scored.rows) == [0, 2, 3, 4]


def test_lines_of_an_unfinished_mini_batch_are_fetched(running, endpoint):
    """A process dies in every attempt at its mini-batch: the answers that it had are not lost."""
    running.ask("one", "wait")
    words = ("--on-azure", "--mini-batch-size", 2, "--in-flight", 1, "--retries", 0)
    name = running.submitted(*words)
    wait_until(lambda: asked(endpoint, "wait"))
    step = running.record(name).step
    step.workers[0].kill()
    endpoint.released.set()
    wait_until(lambda: running.record(name).state() == "Failed")
    done = running.run("--fetch", name)
    assert f"{name}: 2 lines, 1 failed" in done.out, done.err
    assert MISSING_REASON in done.out


def test_the_cluster_may_read_the_connection_itself(running, endpoint):
    """With `azure.identity`, the identity of the cluster gets the role, and reads the key."""
    settings = Path("phi3.yaml").read_text()
    Path("phi3.yaml").write_text(f"{settings}\nazure: {{identity: true}}\n")
    running.ask("one")
    one_line(running.run("--on-azure"), "has no identity", "phi3 provision")
    (cluster,) = (
        document for key, document in running.azure.resources.items() if "/computes/" in key
    )
    identity = next(key for key in running.azure.resources if "/userassignedidentities/" in key)
    cluster["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
    done = running.run("--on-azure", "--follow")
    assert done.code == 0, done.out + done.err
    assert "role Azure Machine Learning Workspace Connection Secrets Reader" in done.out
    (job,) = (write.body for write in running.azure.writes() if "/jobs/batch-" in write.path)
    assert job["properties"]["jobs"]["answers"]["identity"] == {"identity_type": "Managed"}


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


@pytest.mark.parametrize("word", ["--replay", "--resume", "--run"])
def test_options_for_this_machine_only(phi3, word):
    words = [word] if word == "--replay" else [word, "x"]
    done = phi3("run", "--flow", "qa", "--data", "d.jsonl", "--on-azure", *words)
    assert done.code == 2


def _rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]
