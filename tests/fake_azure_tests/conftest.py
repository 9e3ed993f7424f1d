"""The fake Azure as the unmodified clients use it: azure-ai-ml, azure-identity, azure-mgmt-*."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_azure import FakeAzure

GROUP = "rg"
WORKSPACE = "ws"
SCORE = """
import json, os, pathlib, time

def init():
    folder = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
    global text
    text = next(folder.rglob("model.txt")).read_text()
    print("model loaded")

def run(data):
    request = json.loads(data)
    time.sleep(request.get("sleep", 0))
    return {"model": text, "mark": os.environ["MARK"], "inverse": 1 / request["x"]}
"""
# The last event comes after the test has created the file GATE.
STREAM = """
import pathlib, time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

def events():
    yield "data: first\\n\\n"
    while not pathlib.Path(GATE).exists():
        time.sleep(0.02)
    yield "data: last\\n\\n"

@rawhttp
def run(request):
    return AMLResponse(events(), 200, {"Content-Type": "text/event-stream"})
"""
TRAIN = """
import pathlib, sys
rows, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
print("rows:", rows.read_text())
(output / "inner").mkdir()
(output / "inner" / "model.txt").write_text("trained on " + rows.read_text())
pathlib.Path("outputs").mkdir()
pathlib.Path("outputs/metrics.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    with (
        FakeAzure(tmp_path_factory.mktemp("azure")) as azure,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in azure.environment().items():
            patch.setenv(name, value)
        azure.create_group(GROUP)
        yield azure
        assert set(azure.refused_hosts) <= {"example.com"}  # a test requests it


@pytest.fixture(scope="module")
def credential(azure: FakeAzure) -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@pytest.fixture(scope="module")
def client(azure: FakeAzure, credential: Any) -> Any:
    """A client of a workspace that the SDK created."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Workspace

    client = MLClient(credential, azure.subscription, GROUP, WORKSPACE)
    workspace = Workspace(name=WORKSPACE, location=azure.region, tags={"owner": "me"})
    client.workspaces.begin_create(workspace).result()
    return client


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    files = {
        "train/main.py": TRAIN,
        "serve/score.py": SCORE,
        "stream/score.py": STREAM.replace("GATE", repr(str(folder / "gate"))),
    }
    for name, text in (files | {"rows.txt": "a"}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def environment(client: Any) -> Any:
    from azure.ai.ml.entities import Environment

    return client.environments.create_or_update(
        Environment(name="env", image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest")
    )


@pytest.fixture(scope="module")
def job(client: Any, source: Path, environment: Any) -> Any:
    """A job that has run."""
    from azure.ai.ml import Input, Output, command

    job = client.jobs.create_or_update(
        command(
            name="job1",
            code=str(source / "train"),
            command="python main.py ${{inputs.rows}} ${{outputs.model}}",
            inputs={"rows": Input(type="uri_file", path=str(source / "rows.txt"))},
            outputs={"model": Output(type="custom_model")},
            environment=environment,
            compute="gpu",
        )
    )
    client.jobs.stream(job.name)
    return client.jobs.get(job.name)


@pytest.fixture(scope="module")
def model(client: Any, job: Any) -> Any:
    from azure.ai.ml.entities import Model

    path = f"azureml://jobs/{job.name}/outputs/model"
    return client.models.create_or_update(Model(name="phi", path=path, type="custom_model"))
