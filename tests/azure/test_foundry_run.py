"""`phi3 run --on-foundry`: Prompt flow's own client against the fake, which really executes runs."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from azure_fixtures import WORKSPACE, one_line, plant
from echo_endpoint import KEY, echo_endpoint
from flow_uploads import copy_as_version
from phi3_ops import paths
from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import load_config
from phi3_ops.flows.lock import lock_flows, read_lock
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish.project import FoundryProject
from phi3_ops.publish.promote import refuse_other_run
from phi3_ops.publish.stage import require_locked
from phi3_ops.remote_runs import foundry
from phi3_ops.remote_runs.submission import FETCHED_FOLDER
from phi3_ops.runs.scored import load_scored_run
from processes import BIN

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
QUESTIONS = ["one", "two", "three"]
MAPPING = ("--column-mapping", "input_data=${data.question}")
VOLATILE = (
    (r"11111111-1111-4111-8111-111111111111", "<subscription>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"\bfoundry-[0-9a-f]{12}\b", "foundry-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "<hash>"),
)


class Runs:
    """A workspace with the connection and an uploaded flow, a data file, and the commands on them."""

    def __init__(self, azure, phi3, folder, endpoint):
        self.azure, self.phi3, self.folder, self.endpoint = azure, phi3, folder, endpoint
        self.data, self.home = folder / "data.jsonl", folder / "flows"
        self.lock("qa")
        self.ask(*QUESTIONS)

    def lock(self, name):
        copy_as_version(paths.FLOWS / name, self.home / name)
        lock_flows(self.home)

    def ask(self, *questions):
        rows = [{"question": each, "ground_truth": each} for each in questions]
        self.data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def upload(self, name="qa"):
        done = self.phi3("flow", "upload", name, "--folder", self.home)
        assert done.code == 0, done.err

    @property
    def words(self):
        return ("run", "--flow", self.home / "qa", "--data", self.data, *MAPPING)

    def run(self, *words):
        return self.phi3(*self.words, *words)

    @property
    def submitted(self):
        return [each for each in self.azure.requests if each.path.endswith("/BulkRuns/submit")]


@pytest.fixture
def made(provisioned, phi3, tmp_path, monkeypatch):
    import aiohttp.connector
    from fake_azure.storage import DATASTORES, container_of

    from fake_azure import flows as service

    azure = provisioned
    workspace = next(key for key in azure.resources if key.endswith(f"/workspaces/{WORKSPACE}"))
    service.open_share(azure, azure.resources[workspace]["id"])
    for datastore in DATASTORES:
        azure.storage.create(container_of(WORKSPACE, datastore))
    # aiohttp reads the certificate authorities once, when it is imported.
    context = ssl.create_default_context(cafile=str(azure.authority))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)
    monkeypatch.setattr(foundry, "POLL_S", 0.1)
    with echo_endpoint() as endpoint:
        properties = {
            "category": "CustomKeys",
            "authType": "CustomKeys",
            "metadata": {"endpoint": endpoint.url, "contract": "chat", "max_attempts": "1"},
            "credentials": {"keys": {"key": KEY}},
        }
        plant(azure, "connections/phi3", {"properties": properties})
        yield Runs(azure, phi3, tmp_path, endpoint)


@pytest.fixture
def held(monkeypatch):
    """Runs that are submitted start when this event is set; it is set when the test is over."""
    from fake_azure.flow_runs import FlowRun

    go, start = threading.Event(), FlowRun._run
    monkeypatch.setattr(FlowRun, "_run", lambda run: (go.wait(), start(run)))
    yield go
    monkeypatch.setattr(FlowRun, "_execute", lambda run: None)
    monkeypatch.setattr(FlowRun, "_store", lambda run: None)
    go.set()


def name_of(done):
    assert done.code == 0, done.err
    return re.search(r"^run (\S+)$", done.out, re.MULTILINE).group(1)


def holding(folder, text):
    """Return the files below a folder that contain a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


def test_the_request(made, held):
    """The request equals the golden file. PHI3_WRITE_GOLDEN=1 writes that file."""
    made.upload()
    name_of(made.run("--on-foundry", "--in-flight", 4))
    (sent,) = made.submitted
    text = json.dumps({"method": sent.method, "path": sent.path, "body": sent.body})
    for pattern, placeholder in VOLATILE:
        text = re.sub(pattern, placeholder, text)
    file = GOLDEN / "flow-run.json"
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(json.loads(text), indent=2) + "\n")
    assert json.loads(text) == json.loads(file.read_text())
    (uploaded,) = read_lock(made.home)["qa"]["1.0.0"].uploads.values()
    assert sent.body["flowDefinitionResourceId"].endswith(f"/flows/{uploaded}")


def test_the_answers_come_back_as_a_run(made):
    """Submitted, found again, followed, scored, and compared with a run on this machine."""
    made.upload()
    early = made.run("--on-foundry")
    name = name_of(early)
    assert "--follow waits for it" in early.out
    done = made.run("--on-foundry", "--follow", "--evaluate")
    assert name_of(done) == name and len(made.submitted) == 1
    assert f"{name}: 3 lines, 0 failed" in done.out
    assert "Finished 3 / 3 lines" in done.out  # the run's log
    assert len(made.endpoint.requests) == 3
    details = pf_client().get_details(name)
    assert list(details["outputs.answer"]) == list(details["inputs.input_data"]) == QUESTIONS

    save_connection("phi3", {"endpoint": made.endpoint.url, "contract": "chat"}, KEY)
    local = made.run("--evaluate")
    delete_connection("phi3")
    assert local.code == 0, local.err
    compared = made.phi3("compare", local.out.split(":")[0], name)
    assert compared.code == 0, compared.err
    assert re.search(r"exact_match +3 +1 +1 +0 ", compared.out)
    facts = [load_scored_run(each).facts for each in (local.out.split(":")[0], name)]
    connection = ("answer.connection", "answer.connection.endpoint", "answer.connection.contract")
    for fact in ("flow version", "flow content", "flow files", *connection):
        assert facts[0][fact] == facts[1][fact]
    assert facts[1]["tokens"] == "54"
    # It can prove the version for `phi3 flow promote`: raises OpsError otherwise.
    project = FoundryProject(Cloud(load_config(None)))
    refuse_other_run(require_locked("qa", made.home), project, load_scored_run(name))

    for command in (early, done, local, compared):
        assert KEY not in command.out + command.err
    assert not any(KEY.encode() in each.raw for each in made.azure.requests)
    stores = Path(os.environ["PF_HOME_DIRECTORY"])
    assert holding(made.folder, KEY) == holding(stores, KEY) == []


def test_a_second_run_changes_nothing(made):
    made.upload()
    name = name_of(made.run("--on-foundry", "--follow"))
    files = {path: path.read_bytes() for path in FETCHED_FOLDER.rglob("*") if path.is_file()}
    made.azure.requests.clear()
    again = made.run("--on-foundry")
    assert name_of(again) == name and "nothing to change" in again.out
    assert f"{name}: 3 lines, 0 failed" in again.out
    assert made.submitted == [] and made.azure.writes() == []
    assert not [each for each in made.azure.requests if "getByAssetId" in each.path]
    assert files == {path: path.read_bytes() for path in files}


def test_the_metrics_of_an_evaluation_come_back(made):
    made.lock("eval")
    made.upload("eval")
    words = ("--flow", made.home / "eval", "--data", made.data)
    mapping = ("--column-mapping", "answer=${data.question}")
    name = name_of(made.phi3("run", *words, *mapping, "--on-foundry", "--follow"))
    metrics = pf_client().get_metrics(name)
    assert metrics["exact_match"] == 1.0


def test_a_dry_run_changes_nothing(made):
    made.upload()
    made.azure.requests.clear()
    before = sorted(made.folder.rglob("*"))
    done = made.run("--on-foundry", "--dry-run")
    assert done.code == 0, done.err
    assert re.search(r"would submit run foundry-\w+ \(3 lines of .* qa-v1.0.0, in ws-one", done.out)
    assert made.submitted == [] and made.azure.writes() == []
    assert sorted(made.folder.rglob("*")) == before


def test_a_flow_that_is_not_uploaded(made):
    one_line(
        made.run("--on-foundry"),
        "qa-v1.0.0 is not uploaded to ws-one",
        f"phi3 flow upload qa --folder {made.home}",
    )
    assert made.submitted == []


def test_a_flow_that_is_not_locked(made):
    made.upload()
    with (made.home / "qa" / "flow.dag.yaml").open("a") as file:
        file.write("# changed\n")
    one_line(made.run("--on-foundry"), "locked with other content: qa 1.0.0")
    assert made.submitted == []


def test_a_missing_connection_is_named(made):
    made.upload()
    one_line(
        made.run("--on-foundry", "--connection", "other"),
        "no connection 'other'",
        "phi3 connect --azure",
    )
    assert made.submitted == []


def test_failed_lines_say_why(made):
    made.upload()
    made.ask("one", "fail", "three")
    done = made.run("--on-foundry", "--follow")
    assert done.code == 1
    name = re.search(r"^run (\S+)$", done.out, re.MULTILINE).group(1)
    assert f"{name}: 3 lines, 1 failed" in done.out and "told to fail" in done.out
    again = made.run("--fetch", name, "--max-failures", 1, "--evaluate")
    assert again.code == 0, again.err
    assert re.search(r"exact_match\s+0\.6667", again.out)  # over all three
    run = load_scored_run(name)
    assert list(run.errors) == [1] and "told to fail" in run.errors[1]


def test_a_run_that_failed_as_a_whole_is_submitted_again(made):
    made.upload()
    made.azure.fail_job("/bulkruns/", "the session did not start")
    done = made.run("--on-foundry", "--follow")
    one_line(done, "is Failed: the session did not start", "See https://ml.azure.com/")
    first = re.search(r"^run (\S+)$", done.out, re.MULTILINE).group(1)
    one_line(made.run("--fetch", first), f"the run {first} is Failed: the session did not start")
    assert name_of(made.run("--on-foundry", "--follow")) == f"{first}-2"


def test_requests_without_an_answer_are_repeated(made, held):
    made.upload()
    name = name_of(made.run("--on-foundry"))
    held.set()
    made.azure.fail("POST", "/rundata", 503, times=2, after=1)
    done = made.run("--on-foundry", "--follow")
    assert f"{name}: 3 lines, 0 failed" in done.out, done.err


def test_a_refused_request_is_reported(made, held):
    made.upload()
    name_of(made.run("--on-foundry"))
    made.azure.fail("POST", "/rundata", 403, times=None, after=1)
    one_line(made.run("--on-foundry", "--follow"), "Code: 403", "Ask the subscription's owner")


def test_an_interrupted_command_is_continued(made, held):
    made.upload()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [BIN / "phi3", *map(str, made.words), "--on-foundry", "--follow"]
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            until = time.monotonic() + 60
            while not any("logContent" in each.path for each in list(made.azure.requests)):
                assert process.poll() is None and time.monotonic() < until, process.communicate()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, err.splitlines()[-1]) == (130, "phi3: interrupted")
    assert "Traceback" not in out + err
    name = re.search(r"^run (\S+)$", out, re.MULTILINE).group(1)
    assert f"the run {name} goes on: the same command fetches its outputs" in out
    held.set()
    done = made.run("--on-foundry", "--follow")
    assert name_of(done) == name and len(made.submitted) == 1
    assert f"{name}: 3 lines, 0 failed" in done.out


def test_no_token_is_sent_to_a_server_without_a_valid_certificate(made, held, monkeypatch):
    """Prompt flow's own download does not check certificates."""
    made.upload()
    name = name_of(made.run("--on-foundry"))
    held.set()
    monkeypatch.delenv(
        "SSL_CERT_FILE"
    )  # only httpx reads it: the other clients have their own settings
    one_line(made.run("--on-foundry", "--follow"), "CERTIFICATE_VERIFY_FAILED")
    assert not (FETCHED_FOLDER / name).exists()
    assert not [each for each in made.azure.requests if "getByAssetId" in each.path]


def test_outputs_without_permission_to_read_them(made, held):
    made.upload()
    name_of(made.run("--on-foundry"))
    held.set()
    made.azure.fail("POST", "getByAssetId", 403, times=None)
    one_line(made.run("--on-foundry", "--follow"), "Code: 403")


def test_runs_that_cannot_be_fetched(made, held):
    made.upload()
    name = name_of(made.run("--on-foundry"))
    one_line(made.run("--fetch", name), f"the run {name} is Running", "--follow")
    one_line(made.run("--fetch", "foundry-0"), "the run foundry-0 does not exist", "--on-foundry")
    made.ask("other")
    one_line(made.run("--fetch", name), f"the run {name} ran another flow or other data")
