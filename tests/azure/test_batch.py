"""`phi3 run --on-azure` with the real SDK: what it sends, and what it makes of what comes back.

The fake keeps the job in its queue. What it then was sent is run here, the uploaded flow on the uploaded
data, by promptflow-parallel.
"""

from __future__ import annotations

import base64
import importlib.metadata
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
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.wheel import build_tool_wheel
from phi3_ops.pf.client import pf_client
from phi3_ops.remote_runs.cluster import PARALLEL, ClusterRequest, ClusterSubmission
from phi3_ops.remote_runs.outputs import LOST, OUTPUT_FILE, join_outputs
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
        self.flow = folder / "qa"  # a copy: what others leave in the shipped one is another batch
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

    def sent(self, place):
        """The last such request's body, without what is another one each time."""
        (*_, last) = (each for each in self.azure.writes() if re.search(place, each.path))
        text = json.dumps({"method": last.method, "path": last.path, "body": last.body})
        for pattern, shown in VOLATILE:
            text = re.sub(pattern, shown, text)
        return json.loads(text)

    def document(self, place):
        (found,) = (v for k, v in self.azure.resources.items() if k.endswith(place.lower()))
        return found

    def happen(self, name, url):
        """Run on this machine what the job says, and end the job as Azure would."""
        from fake_azure import assets

        job = self.document(f"/jobs/{name}")["properties"]
        (node,) = job["jobs"].values()
        spec = self.document(node["componentId"].split("Microsoft.MachineLearningServices")[1])
        code = spec["properties"]["componentSpec"]["code"]
        here = self.folder / name
        assets.fetch(self.azure, WORKSPACE, code, here / "flow")
        assets.fetch(self.azure, WORKSPACE, job["inputs"]["data"]["uri"], here / "data.jsonl")
        (here / "out").mkdir()
        done = subprocess.run(
            [sys.executable, DRIVER, here / "flow", here / "data.jsonl", here / "out"]
            + [str(node["mini_batch_size"]), str(1 + node["retry_settings"]["max_retries"])]
            + _arguments(node["inputs"]),
            env=self.azure.bare_environment({"AML_PROMPT_FLOW_CONNECTIONS": _connections(url)}),
            capture_output=True,
            text=True,
        )
        from fake_azure.storage import box_of

        self.azure.storage.put_folder(
            box_of(WORKSPACE), f"azureml/{name}/flow_outputs", here / "out"
        )
        self.end(name, "Failed" if done.returncode else "Completed")
        return done

    def end(self, name, status):
        (run,) = (run for key, run in self.azure.runs.items() if key.endswith(f"/jobs/{name}"))
        run.status = status


def _arguments(inputs):
    """promptflow-parallel's arguments for a component's inputs."""
    found, connections = [], []
    for name, value in inputs.items():
        if name.startswith("connections."):
            connections.append(f"{name.removeprefix('connections.')}={value['value']}")
        elif name != "data":
            found.append(f"--pf_input_{name}={value['value']}")
    return [*found, "--amlbi_pf_connections", ",".join(connections)]


def _connections(url):
    """As the nodes get them: in the environment, resolved."""
    fields = {"endpoint": url, "key": KEY, "contract": "chat"}
    known = {"type": "CustomConnection", "module": "promptflow.connections", "value": fields}
    text = json.dumps({"phi3": {**known, "secret_keys": ["key"]}})
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
    ("name", "place"),
    [
        ("batch-job", r"/jobs/batch-"),
        ("batch-component", r"/components/"),
        ("batch-environment", r"/environments/phi3-batch/"),
    ],
)
def test_what_is_sent(batches, name, place):
    """Word for word. PHI3_WRITE_GOLDEN=1 writes it anew."""
    plant(batches.azure, "computes/cpu", {"properties": {"computeType": "AmlCompute"}})
    batches.submitted("--instances", 2, "--mini-batch-size", 2, "--retries", 1, "--compute", "cpu")
    file, shown = GOLDEN / f"{name}.json", batches.sent(place)
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(shown, indent=2) + "\n")
    assert shown == json.loads(file.read_text())


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


def _submission(folder, **settings):
    where = {"subscription_id": "0" * 36, "resource_group": "rg", "workspace": "work"}
    cloud = Cloud(Config.model_validate({"azure": where}), credential=object())
    flow = FlowDefinition.read(folder / "qa")
    columns = settings.pop("columns", {"input_data": "${data.question}"})
    settings = {"title": "qa", **settings}
    return ClusterSubmission(
        cloud, ClusterRequest(flow, folder / "data.jsonl", columns, **settings)
    )


@pytest.fixture
def files(tmp_path):
    copy_flow(paths.FLOWS / "qa", tmp_path / "qa")
    (tmp_path / "data.jsonl").write_text('{"question": "one"}\n')
    return tmp_path


OTHERS = (
    {"instances": 2},
    {"retries": 1},
    {"mini_batch_size": 1},
    {"in_flight": 1},
    {"compute": "cpu"},
    {"title": "again"},
    {"columns": {"input_data": "constant"}},
    {"connections": {"answer": {"connection": "other"}}},
)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda each: next(iter(each)))
def test_other_settings_are_another_job(files, settings):
    assert _submission(files).digest == _submission(files).digest
    assert _submission(files).digest != _submission(files, **settings).digest


@pytest.mark.parametrize("name", ["data.jsonl", "qa/flow.dag.yaml"])
def test_other_content_is_another_job(files, name):
    before = _submission(files).digest
    text = (files / name).read_text()
    (files / name).write_text(text.replace("question", "answer"))
    assert _submission(files).digest != before


@pytest.mark.parametrize(
    ("in_flight", "instances", "each"), [(16, 1, 16), (16, 2, 8), (5, 2, 3), (1, 4, 1)]
)
def test_the_lines_in_flight_are_shared_by_the_nodes(files, in_flight, instances, each):
    made = _submission(files, in_flight=in_flight, instances=instances)
    assert made.request.settings()["max_concurrency_per_instance"] == each


def test_the_image_has_the_tools_and_what_the_flow_asks_for(files):
    copy_flow(paths.FLOWS / "eval", files / "eval")
    flow = FlowDefinition.read(files / "eval")
    columns = {"answer": "${data.answer}", "ground_truth": "${data.question}"}
    request = ClusterRequest(flow, files / "data.jsonl", columns, title="eval")
    context = ClusterSubmission(_submission(files).cloud, request)._context()
    asked = context["requirements.txt"].decode().splitlines()
    assert PARALLEL in asked
    assert [each for each in asked if each.startswith("sacrebleu")]
    assert asked[0].removeprefix("/phi3/") in context


def test_what_failed_is_submitted_again(batches):
    first = batches.submitted()
    batches.end(first, "Failed")
    assert batches.submitted() == f"{first}-2"


def test_the_answers_come_back_as_a_run(batches, endpoint):
    """Submitted, run on mini-batches, fetched, scored and compared."""
    name = batches.submitted("--mini-batch-size", 2)
    happened = batches.happen(name, endpoint.url)
    assert happened.returncode == 0, happened.stderr
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


def test_lines_that_are_not_there_have_failed(batches, endpoint, monkeypatch):
    """A job that fails while it is followed: what was answered is fetched all the same."""
    batches.ask("one", "fail", "three", "four", "five")
    words = ("--on-azure", "--mini-batch-size", 2, "--retries", 1)
    name = batches.submitted(*words)
    assert batches.happen(name, endpoint.url).returncode == 1
    assert len([r for r in endpoint.requests if "fail" in json.dumps(r)]) == 2  # tried again
    batches.end(name, "Running")

    def ends(_, job):
        batches.end(job, "Failed")
        raise _failure()

    from azure.ai.ml.operations import JobOperations

    monkeypatch.setattr(JobOperations, "stream", ends)
    done = batches.run(*words, "--follow")
    assert done.code == 1
    assert "fetching what it answered" in done.err
    assert f"{name}: 5 lines, 2 failed" in done.out  # the mini-batch of the failed one
    assert LOST in done.out
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


def test_a_job_that_is_not_there(batches):
    done = batches.run("--fetch", "no-job")
    one_line(done, "there is no job no-job")


def test_an_empty_data_file(batches):
    batches.data.write_text("")
    one_line(batches.run("--on-azure"), "has no lines")


def test_a_ports_name_is_refused(batches):
    file = batches.flow / "flow.dag.yaml"
    file.write_text(file.read_text().replace("input_data", "data"))
    given = ("--flow", batches.flow, "--data", batches.data)
    mapping = ("--column-mapping", "data=${data.question}")
    one_line(batches.phi3("run", *given, *mapping, "--on-azure"), "the input 'data'", "rename")


@pytest.mark.parametrize("word", ["--replay", "--resume", "--run"])
def test_what_is_for_this_machine_alone(phi3, word):
    words = [word] if word == "--replay" else [word, "x"]
    done = phi3("run", "--flow", "qa", "--data", "d.jsonl", "--on-azure", *words)
    assert done.code == 2


@pytest.mark.parametrize("rows", [[{"answer": "x"}], [{"line_number": 7}], [{"line_number": "0"}]])
def test_a_row_of_no_line_is_refused(tmp_path, rows):
    _write(tmp_path / OUTPUT_FILE, rows)
    with pytest.raises(OpsError, match="line_number"):
        join_outputs(tmp_path, 2)


def test_rows_are_joined_flat_or_nested_and_once(tmp_path):
    rows = [{"line_number": 1, "a": "1"}, {"output": {"line_number": 0, "a": "0"}}]
    _write(tmp_path / "sub" / OUTPUT_FILE, [*rows, {"line_number": 1, "a": "late"}])
    _write(tmp_path / f"temp_0_0_{OUTPUT_FILE}", [{"line_number": 1, "a": "temporary"}])
    assert list(join_outputs(tmp_path, 2).items()) == [(0, {"a": "0"}), (1, {"a": "1"})]


def test_the_wheel_installs_the_tools(tmp_path):
    wheel = build_tool_wheel()
    assert wheel == build_tool_wheel()
    file = wheel.write(tmp_path)
    words = ("install", "--no-deps", "--no-index", "--target", tmp_path / "site", file)
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    (own,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    (tool,) = own.entry_points.select(group="package_tools")
    assert tool.value == "phi3_tools.pf_tools:list_package_tools"
    assert not [need for need in own.requires if "extra" in need]
    assert list((tmp_path / "site" / "phi3_tools" / "yamls").glob("*.yaml"))


def _write(file, rows):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]
