"""The model catalog's own fine-tuning job, for the models that the catalog still fine-tunes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..azure import Cloud, Plan, Step, find_resource, named_errors
from ..errors import OpsError
from .job import JOB_PREFIX, Submission, require_file, require_remote_model

REGISTRY = "azureml://registries/azureml/models"
DEFAULT_MODEL = "Phi-4-mini-instruct"
# Models that were archived in the catalog, and their fine-tuning with them. Contract: "Model retirement".
RETIRED_MODELS = re.compile(r"phi-3(\.5)?-", re.IGNORECASE)
RETIRED_ON = "2025-08-30"
# Advanced settings of the portal's form. The catalog takes their values as text.
CATALOG_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "per_device_train_batch_size",
)


def check_catalog_model(name: str) -> None:
    """Refuse a model that the catalog no longer fine-tunes.

    Raises:
        OpsError: the model is retired; the error names the alternatives.
    """
    if RETIRED_MODELS.search(name):
        raise OpsError(
            f"the catalog no longer fine-tunes {name} (retired on {RETIRED_ON})",
            "Leave out --catalog to train its weights in your own job, or use Phi-4-mini-instruct.",
        )


def catalog_settings(words: Sequence[str]) -> dict[str, str]:
    """Parse advanced settings of the form `name=value`.

    Raises:
        OpsError: a word does not have that form, or its name is unknown.
    """
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in CATALOG_SETTINGS:
            known = ", ".join(CATALOG_SETTINGS)
            raise OpsError(f"--set {word}", f"Give NAME=VALUE with one of the names {known}.")
        settings[name] = value
    return settings


@dataclass(frozen=True)
class CatalogRequest:
    """The model, the data and the settings of the catalog's job.

    Attributes:
        train_file: rows to train on.
        eval_file: rows to measure the loss on.
        model: name in the catalog, or an azureml:// path.
        settings: advanced settings, from `catalog_settings`.
    """

    train_file: Path
    eval_file: Path
    model: str = DEFAULT_MODEL
    settings: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> Iterator[bytes]:
        """Yield the parts of the job's hash."""
        yield repr((self.model, sorted(self.settings.items()))).encode()
        yield self.train_file.read_bytes()
        yield self.eval_file.read_bytes()


class CatalogSubmission(Submission):
    """The catalog's chat-completion fine-tuning job.

    Args:
        cloud: clients and configuration.
        request: model, data and settings.

    Raises:
        OpsError: the model is retired or on this machine only, or a file is missing.
    """

    def __init__(self, cloud: Cloud, request: CatalogRequest) -> None:
        check_catalog_model(request.model)
        require_remote_model(request.model)
        require_file(request.train_file)
        require_file(request.eval_file)
        super().__init__(cloud, request.content())
        self.request = request

    def plan(self) -> Plan:
        """Return the job as the only step: the catalog brings its own environment."""
        path = self._model_path()
        name = path.removeprefix(f"{REGISTRY}/").replace("/versions/", ":")
        what = f"job {JOB_PREFIX}{self.digest} (the catalog's fine-tuning of {name})"
        return Plan("finetune", [Step(what, self.exists, self.submit, verb="submit")])

    def job(self) -> Any:
        """Return the job as azure-ai-ml's object."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each use warns that the class is experimental
            from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

            return create_finetuning_job(
                model=self._model_path(),
                task=FineTuningTaskType.CHAT_COMPLETION,
                training_data=str(self.request.train_file.resolve()),
                # Without it, the SDK raises an UnboundLocalError.
                validation_data=str(self.request.eval_file.resolve()),
                hyperparameters=dict(self.request.settings),
                compute=self.cloud.config.compute.name,
                output_model_name_prefix=self.cloud.config.endpoint.model,
                name=self.name,
                experiment_name="phi3-finetune",
                tags=self.cloud.tags(),
            )

    def _model_path(self) -> str:
        """Return the path of the model's newest version, which the job has to name.

        Raises:
            OpsError: the catalog does not have the model.
        """
        name = self.request.model
        if name.startswith("azureml"):
            return name
        get = self.cloud.catalog.models.get
        with named_errors(f"looking up {name} in the model catalog"):
            model = find_resource(lambda: get(name, label="latest"))
        if model is None:
            fix = f"Give the name of a model that ml.azure.com lists, such as {DEFAULT_MODEL}."
            raise OpsError(f"the model catalog has no model {name}", fix)
        return f"{REGISTRY}/{name}/versions/{model.version}"
