"""The fake Azure with a workspace, finished jobs, and a scoring script that starts at once."""

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
from flow_uploads import home, service  # noqa: F401
from phi3_ops import paths
from phi3_ops.deploy import rollout
from phi3_ops.pf.connections import delete_connection

NAME = "phi3-endpoint"
OUTPUT = {"model_output": {"jobOutputType": "uri_folder"}}
ANSWER = "Bill Gates and Paul Allen."
# Replaces the product's scoring script, which takes seconds to import PyTorch.
SCORE = f"""
def init():
    print("the container starts")

def run(text):
    message = {{"role": "assistant", "content": {ANSWER!r}}}
    return {{"choices": [{{"index": 0, "message": message, "finish_reason": "stop"}}]}}
"""


@dataclass
class FinishedJob:
    """The fake's record of a job, for a job that never ran."""

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
    """An Azure to deploy to, and shortcuts to its state."""

    azure: Any
    phi3: Any

    def job(
        self, name: str, status: str = "Completed", outputs: Any = OUTPUT, model: bool = True
    ) -> str:
        """Plant a job; `model` says whether its outputs contain a model."""
        from fake_azure.storage import container_of

        properties = {"jobType": "Command", "status": status, "outputs": dict(outputs)}
        body = {"properties": {**properties, "tags": {"recipe": "recipes/lora.yaml"}}}
        document = plant(self.azure, f"jobs/{name}", body)
        self.azure.runs[document["id"].lower()] = FinishedJob(status)
        for output in outputs if model else ():
            blob = f"azureml/{name}/{output}/mlflow/MLmodel"
            self.azure.storage.put(container_of(WORKSPACE), blob, b"flavors: {}\n")
        return name

    def deploy(self, name: str, *words: Any) -> Any:
        """Run `phi3 deploy` for a job, which is planted if it does not exist."""
        if not any(key.endswith(f"/jobs/{name}") for key in self.azure.resources):
            self.job(name)
        return self.phi3("deploy", "--job", name, "--drain", 0, *words)

    def live(self, name: str = "old") -> None:
        """Plant an endpoint whose traffic goes to a deployment of that job; it never gets a request."""
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
        (keys,) = self.azure.keys.values()
        return keys["primaryKey"], keys["secondaryKey"]

    @property
    def puts(self) -> list[Any]:
        """The bodies that were sent to the endpoint, in order."""
        path = f"/onlineEndpoints/{NAME}"
        return [write.body for write in self.azure.writes() if write.path.endswith(path)]

    def of(self, kind: str) -> list[Any]:
        """Return the resources of a type."""
        documents = list(self.azure.resources.values())
        return [document for document in documents if document["type"].endswith(f"/{kind}")]

    @property
    def deployments(self) -> dict[str, str]:
        """Deployment -> the job that its model comes from."""
        documents = self.of("onlineEndpoints/deployments")
        return {document["name"]: document["tags"]["job"] for document in documents}

    @property
    def traffic(self) -> dict[str, int]:
        """Job -> its share of the endpoint's traffic, without shares of 0."""
        (endpoint,) = self.of("onlineEndpoints")
        shares = endpoint["properties"]["traffic"]
        return {self.deployments[name]: share for name, share in shares.items() if share}

    @property
    def models(self) -> list[str]:
        """The jobs whose models are registered, once per version."""
        versions = self.of("models/versions")
        return sorted(version["properties"]["tags"]["job"] for version in versions)


@pytest.fixture
def queued_jobs(monkeypatch):
    """Every submitted job stays in the queue."""
    from fake_azure import jobs

    monkeypatch.setattr(jobs, "Run", lambda *_: FinishedJob("Queued"))


@pytest.fixture
def serving(provisioned, phi3, monkeypatch, tmp_path, tmp_path_factory):  # noqa: F811
    """A provisioned workspace, and no endpoint yet. phi3.yaml asks for the scoring script."""
    from fake_azure.storage import DATASTORES, container_of

    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(paths.AZURE, folder / "azure")
    (folder / "serving").mkdir()
    (folder / "serving" / "score.py").write_text(SCORE)
    shutil.copy(paths.SERVING / "conda.yaml", folder / "serving")
    monkeypatch.setattr(paths, "AZURE", folder / "azure")
    for datastore in DATASTORES:  # `provisioned` restores the documents only
        provisioned.storage.create(container_of(WORKSPACE, datastore))
    monkeypatch.setattr(rollout, "POLL_S", 0.05)
    (tmp_path / "phi3.yaml").write_text("endpoint: {variant: score}")
    delete_connection("phi3")
    yield Serving(provisioned, phi3)
    delete_connection("phi3")
