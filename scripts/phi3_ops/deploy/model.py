"""The model of a completed job as a deployment, and how to reach an endpoint that serves it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from phi3_tools import EntraAuth, KeyAuth, Limits, Params, Phi3Client, Phi3Error, Settings

from .. import paths
from ..azure import CPU_IMAGE, Cloud, Step, find_resource, has_gpu, require_completed
from ..errors import OpsError
from ..training import MODEL_OUTPUT, latest_completed
from .rollout import Deployment, SmokeAnswer, content_name

ARTIFACT = f"outputs/{MODEL_OUTPUT}/paths/mlflow"
SMOKE_QUESTION = "Who founded Microsoft?"
SMOKE_LIMITS = Limits(read_timeout_s=180, deadline_s=300)
# Variant -> the connection fields for its wire format. MLflow's server puts the messages into the prompt
# template that train.py saved with the model.
CONTRACTS: dict[str, dict[str, str]] = {
    "score": {"contract": "auto"},
    "mlflow": {"contract": "mlflow", "template": "server"},
    "vllm": {"contract": "openai"},
}

# vLLM uses /score for something else. Azure's front end passes a path on to the container.
PATHS = {"vllm": "/v1/chat/completions"}


def scoring_url(scoring_uri: str, variant: str) -> str:
    """Return an endpoint's URL for requests: its scoring URI with the path of the variant's container."""
    if variant not in PATHS:
        return scoring_uri
    return urlunsplit(urlsplit(scoring_uri)._replace(path=PATHS[variant]))


class ModelDeployment(Deployment):
    """A job's model behind the configured endpoint.

    Args:
        cloud: clients and configuration.
        job: name of the job; None takes the newest completed job.

    Raises:
        OpsError: the job does not exist or has not completed.
    """

    def __init__(self, cloud: Cloud, job: str | None = None) -> None:
        self.cloud = cloud
        self.endpoint = cloud.config.endpoint
        self.job = job or latest_completed(cloud)
        require_completed(cloud, self.job)
        self._yaml = paths.AZURE / f"deployment-{self.endpoint.served_variant}.yml"

    @functools.cached_property
    def name(self) -> str:
        """The deployment's name, from the job, the machines, the YAML file and the scoring script."""
        endpoint = self.endpoint
        parts = [self.job, endpoint.size, str(endpoint.instances), endpoint.served_variant]
        parts.append(self._yaml.read_text(encoding="utf-8"))
        folders = {"score": paths.SERVING, "vllm": paths.AZURE / "vllm"}
        if folder := folders.get(endpoint.served_variant):
            files = sorted(path for path in folder.glob("*") if path.is_file())
            parts += [file.name + file.read_text(encoding="utf-8") for file in files]
        if endpoint.served_variant == "vllm":
            parts.append(str(endpoint.max_model_len))
        return content_name(parts)

    def steps(self) -> list[Step]:
        """Return the registration of the model."""
        what = f"model {self.endpoint.model} from {self.job}"
        return [Step(what, lambda: bool(self._model_versions()), self._register)]

    def _model_versions(self) -> list[Any]:
        """Return the registered versions of the model that come from the job."""
        list_all = self.cloud.ml.models.list
        versions = find_resource(lambda: list(list_all(name=self.endpoint.model))) or []
        return [model for model in versions if (model.tags or {}).get("job") == self.job]

    def _register(self) -> None:
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Model

        self._require_artifact()
        model = Model(
            name=self.endpoint.model,
            path=f"azureml://jobs/{self.job}/{ARTIFACT}",
            type=AssetTypes.MLFLOW_MODEL,
            tags={**self.cloud.tags(), "job": self.job},
        )
        self.cloud.ml.models.create_or_update(model)

    def _require_artifact(self) -> None:
        """Check that the model exists, because the SDK passes the path of a job on unchecked.

        Raises:
            OpsError: the job does not have the output, or the output does not contain a model.
        """
        outputs = getattr(self.cloud.ml.jobs.get(self.job), "outputs", None) or {}
        blob = f"azureml/{self.job}/{MODEL_OUTPUT}/mlflow/MLmodel"
        if MODEL_OUTPUT not in outputs or not self.cloud.has_blob(blob):
            raise OpsError(
                f"the job {self.job} has no MLflow model in its output {MODEL_OUTPUT!r}",
                "Deploy a job of `phi3 finetune`.",
            )

    @contextlib.contextmanager
    def definition(self) -> Iterator[Any]:
        """Give the deployment of scripts/azure with names, model and machines filled in."""
        from azure.ai.ml import load_online_deployment

        newest = max(self._model_versions(), key=lambda model: int(model.version))
        deployment = load_online_deployment(self._yaml)
        deployment.name = self.name
        deployment.endpoint_name = self.endpoint.name
        deployment.model = f"azureml:{newest.name}:{newest.version}"
        deployment.instance_type = self.endpoint.size
        deployment.instance_count = self.endpoint.first_instances
        self._fit_to_size(deployment)
        deployment.tags = {**self.cloud.tags(), "job": self.job}
        yield deployment

    def _fit_to_size(self, deployment: Any) -> None:
        """Fill in the image and the settings that depend on whether the machines have a GPU."""
        variables = deployment.environment_variables
        if self.endpoint.served_variant == "vllm":
            variables["MAX_MODEL_LEN"] = str(self.endpoint.max_model_len)
        elif self.endpoint.served_variant == "score" and not has_gpu(self.endpoint.size):
            deployment.environment.image = CPU_IMAGE
            variables.update(PHI3_EXPECT_GPU="false", PHI3_ENGINE="auto")

    def ask(
        self, scoring_uri: str, auth: KeyAuth | EntraAuth, deployment: str | None
    ) -> SmokeAnswer:
        """Ask the smoke question through the product's client."""
        settings = Settings(
            endpoint=scoring_url(scoring_uri, self.endpoint.served_variant),
            auth=auth,
            limits=SMOKE_LIMITS,
            deployment=deployment,
            **CONTRACTS[self.endpoint.served_variant],
        )
        with Phi3Client(settings) as client:
            try:
                reply = client.chat(SMOKE_QUESTION, Params(max_new_tokens=32, temperature=0))
            except Phi3Error as error:
                what = f"the smoke test of {deployment or 'the endpoint'} failed: {error}"
                raise OpsError(what, "The log is printed above.") from error
        return SmokeAnswer(reply.text, reply.latency_s)
