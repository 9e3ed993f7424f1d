"""From a completed job to an endpoint that answers: what is rolled out is a job's model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from phi3_tools import Limits, Params, Phi3Client, Phi3Error, Settings

from .. import paths
from ..azure import Cloud, Step, find_resource
from ..errors import OpsError
from ..training import MODEL_OUTPUT, latest_completed, require_completed
from .rollout import Rollout, RolloutOptions, content_name

ARTIFACT = f"outputs/{MODEL_OUTPUT}/paths/mlflow"
SMOKE_QUESTION = "Who founded Microsoft?"
SMOKE_LIMITS = Limits(read_timeout_s=180, deadline_s=300)
# What a variant's endpoint speaks, in a connection's fields. MLflow's own server puts what it gets into
# the prompt template that train.py saved with the model.
CONTRACTS: dict[str, dict[str, str]] = {
    "score": {"contract": "auto"},
    "mlflow": {"contract": "mlflow", "template": "server"},
    "vllm": {"contract": "openai"},
}

# vLLM has a /score of its own, for something else. Azure's front end passes a path on to the container.
PATHS = {"vllm": "/v1/chat/completions"}


def scoring_url(endpoint: Any, variant: str) -> str:
    """Where an endpoint is asked: its scoring URI, with the path that the variant's container has."""
    uri = str(endpoint.scoring_uri)
    return urlunsplit(urlsplit(uri)._replace(path=PATHS[variant])) if variant in PATHS else uri


class ModelDeployer(Rollout):
    """Brings one job's model behind the configured endpoint.

    Args:
        cloud: where to.
        options: how.
        say: shows one line of progress.
    """

    def __init__(self, cloud: Cloud, options: RolloutOptions, say: Callable[[str], None]) -> None:
        super().__init__(cloud, options, say, cloud.config.endpoint)
        self.job = options.job or latest_completed(cloud)
        require_completed(cloud, self.job)

    @property
    def name(self) -> str:
        parts = [self.job, self.config.size, str(self.config.instances), self.config.variant]
        parts.append(
            (paths.AZURE / f"deployment-{self.config.variant}.yml").read_text(encoding="utf-8")
        )
        if self.config.variant == "score":
            files = sorted(path for path in paths.SERVING.glob("*") if path.is_file())
            parts += [file.name + file.read_text(encoding="utf-8") for file in files]
        return content_name(parts)

    def _made_of(self) -> list[Step]:
        what = f"model {self.config.model} from {self.job}"
        return [Step(what, self._has_model, self._register)]

    def _models(self) -> list[Any]:
        found = find_resource(lambda: list(self.cloud.ml.models.list(name=self.config.model))) or []
        return [model for model in found if (model.tags or {}).get("job") == self.job]

    def _has_model(self) -> bool:
        return bool(self._models())

    def _register(self) -> None:
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Model

        self._require_artifact()
        model = Model(
            name=self.config.model,
            path=f"azureml://jobs/{self.job}/{ARTIFACT}",
            type=AssetTypes.MLFLOW_MODEL,
            tags={**self.cloud.tags(), "job": self.job},
        )
        self.cloud.ml.models.create_or_update(model)

    def _require_artifact(self) -> None:
        """The SDK passes a job's path on unchecked; so look whether the model is there.

        Raises:
            OpsError: the job has no such output, or no model lies in it.
        """
        outputs = getattr(self.cloud.ml.jobs.get(self.job), "outputs", None) or {}
        there = MODEL_OUTPUT in outputs and self.cloud.has_blob(
            f"azureml/{self.job}/{MODEL_OUTPUT}/mlflow/MLmodel"
        )
        if not there:
            raise OpsError(
                f"the job {self.job} has no MLflow model in its output {MODEL_OUTPUT!r}",
                "Deploy a job of `phi3 finetune`.",
            )

    def _model_id(self) -> str:
        newest = max(self._models(), key=lambda model: int(model.version))
        return f"azureml:{newest.name}:{newest.version}"

    def _definition(self) -> Any:
        from azure.ai.ml import load_online_deployment

        deployment = load_online_deployment(paths.AZURE / f"deployment-{self.config.variant}.yml")
        deployment.name = self.name
        deployment.endpoint_name = self.config.name
        deployment.model = self._model_id()
        deployment.instance_type = self.config.size
        deployment.instance_count = self.config.instances
        deployment.tags = {**self.cloud.tags(), "job": self.job}
        return deployment

    def _ask(self, deployment: str | None) -> tuple[str, float]:
        """Asked with the product's own client."""
        with Phi3Client(replace(self.settings(), deployment=deployment)) as client:
            try:
                reply = client.chat(SMOKE_QUESTION, Params(max_new_tokens=32, temperature=0))
            except Phi3Error as error:
                what = f"the smoke test of {deployment or 'the endpoint'} failed: {error}"
                raise OpsError(what, "Its log is shown above.") from error
        return reply.text, reply.latency_s

    def settings(self) -> Settings:
        """How to reach the endpoint."""
        return Settings(
            endpoint=scoring_url(self.endpoint(), self.config.variant),
            auth=self._auth(),
            limits=SMOKE_LIMITS,
            **CONTRACTS[self.config.variant],
        )
