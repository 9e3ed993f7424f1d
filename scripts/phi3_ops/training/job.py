"""Fine-tuning as an Azure ML job: the same train.py as on this machine, run on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..azure import (
    COMPLETED,
    CPU_IMAGE,
    HASH_LENGTH,
    Cloud,
    Plan,
    Step,
    find_resource,
    has_gpu,
    named_errors,
    newest_attempt,
    read_sizes,
)
from ..errors import OpsError
from ..hashing import parts_sha256
from ..models import is_converted_here
from ..yaml_files import load_yaml
from .local import base_model_of, recipe_content, recipe_file

JOB_FILE = paths.AZURE / "job.yml"
ENVIRONMENT_FILE = paths.AZURE / "environment.yml"
MODEL_OUTPUT = "model_output"
# By content, not by job: a job that is submitted again after a failure resumes from its checkpoints.
CHECKPOINTS = "azureml://datastores/workspaceblobstore/paths/phi3-checkpoints/{digest}/"
JOB_PREFIX = "phi3-"
RECIPE_TAG = "recipe"


@dataclass(frozen=True)
class JobRequest:
    """The data, the recipe and the settings of a job; None takes the recipe's value.

    Attributes:
        train_file: rows to train on.
        eval_file: rows to measure the loss on.
        recipe: name of a shipped recipe, or a YAML file inside scripts/training.
        model: hub id of the base model.
        cpu: use the image without GPU libraries.
        rows: number of rows to use of each file, from its beginning.
        epochs: number of epochs.
        instances: number of nodes; all their GPUs train one model, with PyTorch's distribution.
    """

    train_file: Path
    eval_file: Path
    recipe: str
    model: str | None = None
    cpu: bool = False
    rows: int | None = None
    epochs: float | None = None
    instances: int = 1

    def train_arguments(self) -> list[str]:
        """Return the arguments of train.py that replace the recipe's values."""
        values = {"--model": self.model, "--rows": self.rows, "--epochs": self.epochs}
        return [word for name, value in values.items() if value for word in (name, str(value))]


class Submission(ABC):
    """A job that is submitted once for the same content.

    Attributes:
        digest: hash of the content; part of the job's name.

    Args:
        cloud: clients and configuration.
        content: everything that makes two jobs different: code, data and settings.
    """

    def __init__(self, cloud: Cloud, content: Iterable[bytes]) -> None:
        self.cloud = cloud
        self.digest = _digest(content)
        self._name: str | None = None

    @abstractmethod
    def plan(self) -> Plan:
        """Return the steps that submit the job."""

    @abstractmethod
    def job(self) -> Any:
        """Return the job as azure-ai-ml's object."""

    @property
    def name(self) -> str:
        """The job's name; a job that failed is followed by one whose name ends with `-2`, then `-3`, …"""
        if self._name is None:
            self.exists()
        return str(self._name)

    def exists(self) -> bool:
        """Return whether the job was submitted and has not failed since."""

        def find(name: str) -> Any:
            return find_resource(lambda: self.cloud.ml.jobs.get(name))

        self._name, job = newest_attempt(f"{JOB_PREFIX}{self.digest}", "job", find)
        return job is not None

    def submit(self) -> None:
        """Submit the job."""
        self.cloud.ml.jobs.create_or_update(self.job())


class JobSubmission(Submission):
    """A job that runs train.py.

    Args:
        cloud: clients and configuration.
        request: data, recipe and settings.

    Raises:
        OpsError: a file is missing, the recipe is outside the folder that is uploaded or does not merge
            its adapters, or the model is on this machine only.
    """

    def __init__(self, cloud: Cloud, request: JobRequest) -> None:
        recipe = _uploaded_path(recipe_file(request.recipe))
        require_remote_model(base_model_of(request.recipe, request.model))
        _require_job_recipe(request.recipe)
        require_file(request.train_file)
        require_file(request.eval_file)
        super().__init__(cloud, _content(cloud, request, recipe))
        self.request = request
        self.recipe = recipe

    def plan(self) -> Plan:
        """Return the steps: environment, then job."""
        steps = [
            Step(
                f"environment {self.environment.name}:{self.environment.version}",
                lambda: find_resource(self._get_environment) is not None,
                lambda: self.cloud.ml.environments.create_or_update(self.environment),
            ),
            Step(self._description(), self.exists, self.submit, verb="submit"),
        ]
        return Plan("finetune", steps)

    @property
    def environment(self) -> Any:
        """The environment; its version is the hash of its image and packages."""
        from azure.ai.ml import load_environment

        image = [{"image": CPU_IMAGE}] if self.request.cpu else []
        environment: Any = load_environment(ENVIRONMENT_FILE, params_override=image)
        conda = (paths.TRAINING / "conda.yaml").read_bytes()
        environment.version = _digest([str(environment.image).encode(), conda])
        return environment

    def _get_environment(self) -> Any:
        environment = self.environment
        return self.cloud.ml.environments.get(environment.name, version=environment.version)

    def _description(self) -> str:
        rows = f"the first {self.request.rows} rows of " if self.request.rows else ""
        cluster = f"{self.cloud.config.compute.name} x {self.request.instances}"
        content = f"{self.recipe}, {rows}{self.request.train_file}, on {cluster}"
        return f"job {JOB_PREFIX}{self.digest} ({content})"

    def job(self) -> Any:
        """Return the job of scripts/azure/job.yml with names and files filled in."""
        from azure.ai.ml import load_job

        request = self.request
        command = load_yaml(JOB_FILE)["command"]
        overrides: dict[str, Any] = {
            "name": self.name,
            "display_name": f"phi3-finetune {Path(self.recipe).stem}",
            "tags": {**self.cloud.tags(), RECIPE_TAG: self.recipe, "content": self.digest},
            "compute": f"azureml:{self.cloud.config.compute.name}",
            "environment": f"azureml:{self.environment.name}:{self.environment.version}",
            "command": " ".join([command, *request.train_arguments()]),
            "inputs.recipe": self.recipe,
            "inputs.train_file.path": str(request.train_file.resolve()),
            "inputs.eval_file.path": str(request.eval_file.resolve()),
            "outputs.checkpoints.path": CHECKPOINTS.format(digest=self.digest),
            "resources.instance_count": request.instances,
        }
        if request.cpu or not has_gpu(self.cloud.config.compute.size):
            overrides["environment_variables.PHI3_EXPECT_GPU"] = "false"
        processes = 1 if request.cpu else self._gpus_per_node()
        if request.instances * processes > 1:
            overrides["distribution"] = {
                "type": "pytorch",
                "process_count_per_instance": processes,
            }
        return load_job(
            JOB_FILE, params_override=[{key: value} for key, value in overrides.items()]
        )

    def _gpus_per_node(self) -> int:
        """Return how many GPUs a node of the cluster has; 1 if Azure does not list the size."""
        size = read_sizes(self.cloud).get(self.cloud.config.compute.size.lower())
        return max(size.gpus, 1) if size else 1


def latest_completed(cloud: Cloud) -> str:
    """Return the name of the newest completed job that this product submitted.

    Raises:
        OpsError: no such job has completed.
    """
    with named_errors("listing the jobs"):
        jobs = [job for job in cloud.ml.jobs.list() if _is_training_job(job)]
    completed = [job for job in jobs if job.status == COMPLETED]
    if not completed:
        fix = "Run `phi3 finetune --follow` first."
        raise OpsError("no fine-tuning job has completed yet", fix)
    # Azure does not document the order of the list.
    return str(max(completed, key=lambda job: job.creation_context.created_at).name)


def _is_training_job(job: Any) -> bool:
    """Return whether a listed job runs train.py.

    The catalog's jobs have similar names, but no recipe. The SDK lists jobs that it cannot read as None.
    """
    return (
        job is not None and str(job.name).startswith(JOB_PREFIX) and RECIPE_TAG in (job.tags or {})
    )


def require_remote_model(model: str) -> None:
    """Raise OpsError if a model is on this machine only: a job cannot read it."""
    if is_converted_here(model) or Path(model).is_dir():
        what = f"the model {model} is on this machine only, and a job on Azure cannot read it"
        raise OpsError(what, "Give a hub id or phi-3.5-mini, or train here with --local.")


def _require_job_recipe(recipe: str) -> None:
    """Check that a job can do what a recipe says.

    Raises:
        OpsError: the job would write no model to deploy, has no package of a tracker or no token of the
            hub, or has fewer files than the mixture.
    """
    content = recipe_content(recipe)
    report_to = content.get("report_to")
    others = [name for name in report_to if name != "mlflow"] if isinstance(report_to, list) else []
    problems = {
        "merge": (content.get("merge") is False, "adapters alone cannot be deployed"),
        "report_to": (bool(others), "a job logs to mlflow only"),
        "push_to_hub": (bool(content.get("push_to_hub")), "a job has no token of the hub"),
        "mixture": (bool(content.get("mixture")), "a job has one training file"),
    }
    for key, (is_wrong, reason) in problems.items():
        if is_wrong:
            setting = "`merge: false`" if key == "merge" else f"`{key}`"
            what = f"the recipe {recipe} has {setting}, and {reason}"
            raise OpsError(what, f"Remove `{key}` from the recipe, or train here with --local.")


def require_file(path: Path) -> None:
    """Raise OpsError if a data file does not exist."""
    if not path.is_file():
        raise OpsError(f"{path} does not exist", "Create it with `phi3 data`.")


def _content(cloud: Cloud, request: JobRequest, recipe: str) -> Iterator[bytes]:
    """Yield the parts of a job's hash: code, data, settings and cluster."""
    for file in sorted(_code_files()):
        yield file.relative_to(paths.TRAINING).as_posix().encode()
        yield file.read_bytes()
    yield request.train_file.read_bytes()
    yield request.eval_file.read_bytes()
    yield repr((recipe, request.train_arguments(), request.cpu, request.instances)).encode()
    yield cloud.config.compute.name.encode()


def _code_files() -> Iterator[Path]:
    for file in paths.TRAINING.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _uploaded_path(recipe: Path) -> str:
    """Return the recipe's path in the job, to which only scripts/training is uploaded."""
    try:
        return recipe.resolve().relative_to(paths.TRAINING).as_posix()
    except ValueError as error:
        fix = f"Move it to {paths.TRAINING / 'recipes'}: only that folder is uploaded."
        raise OpsError(f"{recipe} is outside the training folder", fix) from error


def _digest(parts: Iterable[bytes]) -> str:
    return parts_sha256(parts)[:HASH_LENGTH]
