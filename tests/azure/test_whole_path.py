"""The whole path on Azure: the commands as processes, with the real SDK against the fake Azure.

It begins and ends with an empty Azure; in between, a job trains and a deployment answers. The other files
of this folder test what goes wrong on the way; they run the commands in the tests' own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading

import pytest

from fake_azure import FakeAzure
from phi3_ops import paths
from processes import BIN, pf, phi3
from stores import make_store

pytestmark = pytest.mark.slow
ENDPOINT = "phi3-endpoint"


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with FakeAzure(tmp_path_factory.mktemp("azure")) as azure:
        azure.create_group("rg")
        yield azure


@pytest.fixture(scope="module")
def env(azure, tmp_path_factory):
    # The fake has no GPU, and train.py and score.py refuse the CPU of a size with one.
    config = tmp_path_factory.mktemp("config") / "phi3.yaml"
    size = "Standard_DS3_v2"
    config.write_text(f"{{compute: {{size: {size}}}, endpoint: {{size: {size}}}}}")
    return azure.environment() | {
        "AZURE_RESOURCE_GROUP": "rg",
        "AZUREML_WORKSPACE_NAME": "work",
        "PHI3_OWNER": "tester",
        "PF_HOME_DIRECTORY": str(make_store(tmp_path_factory.mktemp("home"))),
        "PHI3_CONFIG": str(config),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    assert phi3("data", "--out", folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def run(env):
    def run(*words, code=0):
        done = phi3(*words, env=env, timeout=300)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def finetune(run, data):
    files = ("--train-file", data / "train.jsonl", "--eval-file", data / "test.jsonl")

    def finetune(*more, epochs=1, code=0):
        words = ("finetune", "--recipe", "tiny-cpu", "--epochs", epochs, *files, *more)
        return run(*words, code=code)

    return finetune


@pytest.fixture(scope="module")
def provisioned(run):
    return run("provision", "--yes")


@pytest.fixture(scope="module")
def trained(provisioned, finetune):
    return finetune("--follow")


@pytest.fixture(scope="module")
def deployed(trained, run):
    return run("deploy", "--drain", "0")


@pytest.fixture(scope="module")
def connected(deployed, run):
    return run("connect", "--azure")


def deployments(azure):
    return sorted(path.rsplit("/", 1)[1] for path in azure.resources if "/deployments/d-" in path)


def endpoint(azure):
    path = f"/onlineendpoints/{ENDPOINT}"
    (document,) = (value for key, value in azure.resources.items() if key.endswith(path))
    return document["properties"]


def answer(env):
    done = pf("flow", "test", "--flow", "flows/qa", env=env, cwd=paths.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.rindex("{") :])["answer"]


def test_the_job_really_trains_and_is_recognized(trained, finetune, azure):
    assert "train.py: done in" in trained
    before = len(azure.writes())
    assert "nothing to change" in finetune()
    assert len(azure.writes()) == before


def test_a_dry_run_changes_nothing(trained, finetune, run, azure):
    before = len(azure.writes())
    assert "would submit job" in finetune("--dry-run", epochs=7)
    assert "would create deployment" in run("deploy", "--dry-run") or deployments(azure)
    assert len(azure.writes()) == before


def test_the_deployment_answers_and_is_recognized(deployed, run, azure):
    assert "answers in" in deployed
    assert endpoint(azure)["traffic"] == {deployments(azure)[0]: 100}
    before = len(azure.writes())
    assert "nothing to change" in run("deploy")
    assert len(azure.writes()) == before


def test_the_flow_answers_through_the_connection(connected, env, run):
    assert isinstance(answer(env), str)
    assert "nothing to change" in run("connect", "--azure")


def test_promptflow_reads_the_workspaces_connection(connected, azure, env):
    """Read with promptflow's parser, from the fake's answer."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from phi3_ops.azure import Cloud, load_config\n"
        "from promptflow.core._connection_provider._workspace_connection_provider import "
        "WorkspaceConnectionProvider as P\n"
        "cloud = Cloud(load_config()); azure = cloud.config.azure\n"
        "p = P(azure.subscription_id, azure.resource_group, azure.workspace, cloud.credential)\n"
        "connection = p.get('phi3')\n"
        "print(type(connection).__name__, sorted(connection.configs), sorted(connection.secrets))\n"
    )
    done = subprocess.run(
        [BIN / "python", "-c", code], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kind, rest = done.stdout.split(" ", 1)
    assert kind == "CustomConnection"
    assert "'endpoint'" in rest and rest.rstrip().endswith("['key']")


def test_rotated_keys_work_and_the_old_ones_do_not(connected, env, run, azure):
    (before,) = azure.keys.values()
    before = dict(before)
    assert "secondary key" in run("connect", "--azure", "--rotate")
    (after,) = azure.keys.values()
    assert not set(before.values()) & set(after.values())
    assert isinstance(answer(env), str)


def test_a_redeploy_under_load_loses_no_request(connected, run, env, azure, tmp_path):
    old = deployments(azure)
    another_deployment = "endpoint: {instances: 2, size: Standard_DS3_v2}"
    (tmp_path / "phi3.yaml").write_text(another_deployment)
    load = Load(azure, env)
    with load:
        words = ("--config", tmp_path / "phi3.yaml", "--canary", "10,100", "--drain", "1")
        output = run("deploy", *words)
    assert len(load.answers) > 20
    assert load.failures == []
    assert deployments(azure) != old and len(deployments(azure)) == 1
    assert "10 %" in output


class Load:
    """Two clients that ask without a pause, in a process that uses the fake Azure."""

    CODE = (
        "import sys, threading, time\n"
        "from phi3_ops.pf import load_connection\n"
        "from phi3_tools import Phi3Client, Params, Limits\n"
        "connection = load_connection('phi3')\n"
        "client = Phi3Client.from_connection(connection, limits=Limits(max_attempts=1))\n"
        "def report(text): sys.stdout.write(text + chr(10)); sys.stdout.flush()\n"
        "def ask():\n"
        "    while True:\n"
        "        try: report('ok ' + repr(client.chat('hi', Params(max_new_tokens=4)).text))\n"
        "        except Exception as error: report('FAILED ' + repr(error))\n"
        "for _ in range(2): threading.Thread(target=ask, daemon=True).start()\n"
        "sys.stdin.read()\n"
    )

    def __init__(self, azure, env):
        self.env = {**os.environ, **env}
        self.answers: list[str] = []
        self.failures: list[str] = []

    def __enter__(self):
        self.process = subprocess.Popen(
            [BIN / "python", "-c", self.CODE],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started = threading.Event()
        self.reader = threading.Thread(target=self._read, args=(started,))
        self.reader.start()
        assert started.wait(60), "the load did not start"
        return self

    def _read(self, started):
        for line in self.process.stdout:
            (self.answers if line.startswith("ok") else self.failures).append(line.strip())
            started.set()

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)
        self.reader.join(30)
        self.process.stdout.close()


def test_down_leaves_nothing_that_costs(connected, run, azure):
    assert azure.refused_hosts == []
    run("down", "--yes")
    assert deployments(azure) == []
    assert not [path for path in azure.resources if "/onlineendpoints/" in path]
    assert not [path for path in azure.resources if "/computes/" in path]
