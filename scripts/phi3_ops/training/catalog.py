"""The model catalog's own fine-tuning job, for the models whose fine-tuning it still offers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..azure import Cloud, Plan, Step
from ..errors import OpsError
from .job import JOB_PREFIX, JobRequest, JobSubmission

REGISTRY = "azureml://registries/azureml/models"
DEFAULT_MODEL = "Phi-4-mini-instruct"
# "Model retirement": archived in the catalog, and their fine-tuning with them.
RETIRED_MODELS = re.compile(r"phi-3(\.5)?-", re.IGNORECASE)
RETIRED_ON = "2025-08-30"
# Of the advanced settings in the portal's form; the catalog takes them as text.
CATALOG_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "per_device_train_batch_size",
)


def check_catalog_model(name: str) -> None:
    """Refuse what the catalog no longer fine-tunes.

    Raises:
        OpsError: naming the way that is left.
    """
    if RETIRED_MODELS.search(name):
        raise OpsError(
            f"the catalog no longer fine-tunes {name} (retired on {RETIRED_ON})",
            "Leave out --catalog: your own job trains it from its weights; or use Phi-4-mini-instruct.",
        )


def catalog_settings(words: Sequence[str]) -> dict[str, str]:
    """Advanced settings from `name=value` words.

    Raises:
        OpsError: a word is not of that form, or its name unknown.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in CATALOG_SETTINGS:
            known = ", ".join(CATALOG_SETTINGS)
            raise OpsError(f"--set {word}", f"Give NAME=VALUE with a name among {known}.")
        found[name] = value
    return found


class CatalogSubmission(JobSubmission):
    """The catalog's chat-completion fine-tuning job.

    Args:
        cloud: where to.
        request: its model (a catalog name or an azureml:// path) and its files.
        settings: advanced settings, of `SETTINGS`.

    Raises:
        OpsError: the model is retired, or a file is missing.
    """

    def __init__(self, cloud: Cloud, request: JobRequest, settings: dict[str, str]) -> None:
        self.model = request.model or DEFAULT_MODEL
        self.settings = settings
        check_catalog_model(self.model)
        super().__init__(cloud, request)

    def _parts(self) -> Iterator[bytes]:
        yield repr((self.model, sorted(self.settings.items()))).encode()
        yield self.request.train_file.read_bytes()
        yield self.request.eval_file.read_bytes()

    def plan(self) -> Plan:
        """The job alone: the catalog brings its own environment."""
        what = f"job {JOB_PREFIX}{self.digest} (the catalog's fine-tuning of {self.model})"
        return Plan("finetune", [Step(what, self._exists, self._submit, verb="submit")])

    def job(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the class is marked experimental at each use
            from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

            return create_finetuning_job(
                model=self._model_path(),
                task=FineTuningTaskType.CHAT_COMPLETION,
                training_data=str(self.request.train_file.resolve()),
                # Left out, the SDK raises an UnboundLocalError.
                validation_data=str(self.request.eval_file.resolve()),
                hyperparameters=self.settings,
                compute=self.cloud.config.compute.name,
                output_model_name_prefix=self.cloud.config.endpoint.model,
                name=self.name,
                experiment_name="phi3-finetune",
                tags=self.cloud.tags(),
            )

    def _model_path(self) -> str:
        named = not self.model.startswith("azureml")
        return f"{REGISTRY}/{self.model}/labels/latest" if named else self.model
