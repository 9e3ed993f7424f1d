"""The fake Azure with a workspace, jobs that have ended, and a scoring script that starts at once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest

from azure_fixtures import (  # noqa: F401
    WORKSPACE,
    azure,
    kill_after,
    one_azure,
    phi3,
    plant,
    provisioned,
    snapshot,
)
from phi3_ops import paths
from phi3_ops.deploy import rollout
from phi3_ops.pf.connections import delete_connection

NAME = "phi3-endpoint"
OUTPUT = {"model_output": {"jobOutputType": "uri_folder"}}
ANSWER = "Bill Gates and Paul Allen."
# In place of the product's, which takes seconds to import PyTorch.
SCORE = f"""
def init():
    print("the container starts")

def run(text):
    message = {{"role": "assistant", "content": {ANSWER!r}}}
    return {{"choices": [{{"index": 0, "message": message, "finish_reason": "stop"}}]}}
"""


@dataclass
class Ended:
    """What the fake keeps of a job, for one that never ran."""

    status: str
    properties: dict[str, Any] = field(default_factory=dict)

    def state(self) -> str:
        return self.status

    def log_url(self) -> str:
        return ""

    def history(self) -> dict[str, Any]:
        return {"runId": "", "outputs": {}}


@dataclass
class Serving:
    """An Azure to deploy to, and what the tests look at in it."""

    azure: Any
    phi3: Any

    def job(
        self, name: str, status: str = "Completed", outputs: Any = OUTPUT, model: bool = True
    ) -> str:
        """A job of that name; one with an output has a model there, unless told otherwise."""
        from fake_azure.storage import box_of

        body = {"properties": {"jobType": "Command", "status": status, "outputs": dict(outputs)}}
        document = plant(self.azure, f"jobs/{name}", body)
        self.azure.runs[document["id"].lower()] = Ended(status)
        for output in outputs if model else ():
            blob = f"azureml/{name}/{output}/mlflow/MLmodel"
            self.azure.storage.put(box_of(WORKSPACE), blob, b"flavors: {}\n")
        return name

    def deploy(self, name: str, *words: Any) -> Any:
        """`phi3 deploy` of that job, which is planted when it is not there."""
        if not any(key.endswith(f"/jobs/{name}") for key in self.azure.resources):
            self.job(name)
        return self.phi3("deploy", "--job", name, "--drain", 0, *words)

    def live(self, name: str = "old") -> None:
        """An endpoint whose traffic goes to that job's deployment, which nobody asks anything."""
        self.job(name)
        tags = {"created-by": "phi3-promptflow", "workspace": WORKSPACE, "job": name}
        endpoint = plant(self.azure, f"onlineEndpoints/{NAME}", {"tags": tags, "properties": {}})
        self.azure.keys[endpoint["id"].lower()] = {"primaryKey": "one", "secondaryKey": "two"}
        size = {"instanceType": "Standard_NC24ads_A100_v4", "endpointComputeType": "Managed"}
        body = {"tags": tags, "properties": size}
        plant(self.azure, f"onlineEndpoints/{NAME}/deployments/d-{name}", body)
        endpoint["properties"]["traffic"] = {f"d-{name}": 100}

    @property
    def keys(self) -> tuple[str, str]:
        """The endpoint's primary and secondary key."""
        (found,) = self.azure.keys.values()
        return found["primaryKey"], found["secondaryKey"]

    @property
    def puts(self) -> list[Any]:
        """The endpoint's bodies that were sent, in order."""
        writes = self.azure.writes()
        return [each.body for each in writes if each.path.endswith(f"/onlineEndpoints/{NAME}")]

    def of(self, kind: str) -> list[Any]:
        """The resources of a type."""
        every = list(self.azure.resources.values())
        return [each for each in every if each["type"].endswith(f"/{kind}")]

    @property
    def deployments(self) -> dict[str, str]:
        """The deployments and the jobs that their models come from."""
        return {
            each["name"]: each["tags"]["job"] for each in self.of("onlineEndpoints/deployments")
        }

    @property
    def traffic(self) -> dict[str, int]:
        """The shares of the endpoint's traffic by job, without those of nothing."""
        (endpoint,) = self.of("onlineEndpoints")
        shares = endpoint["properties"]["traffic"]
        return {self.deployments[name]: share for name, share in shares.items() if share}

    @property
    def models(self) -> list[str]:
        """The jobs whose models are registered, once for each version."""
        return sorted(each["properties"]["tags"]["job"] for each in self.of("models/versions"))


@pytest.fixture
def queued_jobs(monkeypatch):
    """What is submitted stays in the queue."""
    from fake_azure import jobs

    monkeypatch.setattr(jobs, "Run", lambda *_: Ended("Queued"))


@pytest.fixture
def serving(provisioned, phi3, monkeypatch, tmp_path_factory):  # noqa: F811
    """A provisioned workspace, and no endpoint yet."""
    from fake_azure.storage import DATASTORES, box_of

    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(paths.AZURE, folder / "azure")
    (folder / "serving").mkdir()
    (folder / "serving" / "score.py").write_text(SCORE)
    shutil.copy(paths.SERVING / "conda.yaml", folder / "serving")
    monkeypatch.setattr(paths, "AZURE", folder / "azure")
    for datastore in DATASTORES:  # `provisioned` brings back the documents alone
        provisioned.storage.create(box_of(WORKSPACE, datastore))
    monkeypatch.setattr(rollout, "POLL_S", 0.05)
    delete_connection("phi3")
    yield Serving(provisioned, phi3)
    delete_connection("phi3")
