"""Fine-tuning as an Azure ML job: the same train.py, on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..azure import (
    COMPLETED,
    HASH_LENGTH,
    Cloud,
    Plan,
    Step,
    find_resource,
    named_errors,
    newest_attempt,
)
from ..errors import OpsError
from ..hashing import parts_sha256
from .local import recipe_file

JOB_FILE = paths.AZURE / "job.yml"
ENVIRONMENT_FILE = paths.AZURE / "environment.yml"
# The tutorials' image for training without a GPU.
CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest"
MODEL_OUTPUT = "model_output"
# By content, not by job: a job submitted again after a failure goes on where the one before it stopped.
CHECKPOINTS = "azureml://datastores/workspaceblobstore/paths/phi3-checkpoints/{digest}/"
JOB_PREFIX = "phi3-"


@dataclass(frozen=True)
class JobRequest:
    """What to train, and on what; None takes the recipe's or the configuration's.

    Attributes:
        train_file: rows to train on.
        eval_file: rows to measure the loss on.
        recipe: a shipped recipe's name, or a YAML file inside scripts/training.
        model: hub id of the base model.
        cpu: use the image without GPU libraries.
        rows: only the first rows of each file.
        epochs: in place of the recipe's.
        instances: nodes; all their GPUs train together, by PyTorch's distribution.
    """

    train_file: Path
    eval_file: Path
    recipe: str
    model: str | None = None
    cpu: bool = False
    rows: int | None = None
    epochs: float | None = None
    instances: int = 1

    def extra(self) -> list[str]:
        """train.py's further arguments."""
        given = {"--model": self.model, "--rows": self.rows, "--epochs": self.epochs}
        return [word for name, value in given.items() if value for word in (name, str(value))]


class JobSubmission:
    """A job that is submitted once for the same code, data and settings.

    Args:
        cloud: where to.
        request: what to train.

    Raises:
        OpsError: a file is missing, or the recipe is not among those that are uploaded.
    """

    def __init__(self, cloud: Cloud, request: JobRequest) -> None:
        self.cloud = cloud
        self.request = request
        self.recipe = _uploaded(recipe_file(request.recipe))
        for file in (request.train_file, request.eval_file):
            if not file.is_file():
                raise OpsError(f"there is no file {file}", "Make it with `phi3 data`.")
        self.digest = _digest(self._parts())
        self._name: str | None = None

    def _parts(self) -> Iterator[bytes]:
        request = self.request
        for file in sorted(_code_files()):
            yield file.relative_to(paths.TRAINING).as_posix().encode()
            yield file.read_bytes()
        yield request.train_file.read_bytes()
        yield request.eval_file.read_bytes()
        compute = self.cloud.config.compute
        yield repr((self.recipe, request.extra(), request.cpu, request.instances)).encode()
        yield compute.name.encode()

    def plan(self) -> Plan:
        """Environment, then job."""
        steps = [
            Step(
                f"environment {self.environment.name}:{self.environment.version}",
                lambda: find_resource(self._get_environment) is not None,
                lambda: self.cloud.ml.environments.create_or_update(self.environment),
            ),
            Step(self._what(), self._exists, self._submit, verb="submit"),
        ]
        return Plan("finetune", steps)

    @property
    def environment(self) -> Any:
        """The environment whose version is the hash of what it is made of."""
        from azure.ai.ml import load_environment

        image = [{"image": CPU_IMAGE}] if self.request.cpu else []
        environment: Any = load_environment(ENVIRONMENT_FILE, params_override=image)
        conda = (paths.TRAINING / "conda.yaml").read_bytes()
        environment.version = _digest([str(environment.image).encode(), conda])
        return environment

    def _get_environment(self) -> Any:
        environment = self.environment
        return self.cloud.ml.environments.get(environment.name, version=environment.version)

    def _what(self) -> str:
        rows = f"the first {self.request.rows} rows of " if self.request.rows else ""
        cluster = f"{self.cloud.config.compute.name} x {self.request.instances}"
        content = f"{self.recipe}, {rows}{self.request.train_file}, on {cluster}"
        return f"job {JOB_PREFIX}{self.digest} ({content})"

    @property
    def name(self) -> str:
        """The job's name; one that failed under it is followed by `-2`, `-3`, …"""
        if self._name is None:
            self._exists()
        return str(self._name)

    def _exists(self) -> bool:
        def find(name: str) -> Any:
            return find_resource(lambda: self.cloud.ml.jobs.get(name))

        self._name, job = newest_attempt(f"{JOB_PREFIX}{self.digest}", "job", find)
        return job is not None

    def _submit(self) -> None:
        self.cloud.ml.jobs.create_or_update(self.job())

    def job(self) -> Any:
        """The job of scripts/azure/job.yml with names and files filled in."""
        from azure.ai.ml import load_job

        request = self.request
        command = yaml.safe_load(JOB_FILE.read_text(encoding="utf-8"))["command"]
        filled: dict[str, Any] = {
            "name": self.name,
            "display_name": f"phi3-finetune {Path(self.recipe).stem}",
            "tags": {**self.cloud.tags(), "recipe": self.recipe, "content": self.digest},
            "compute": f"azureml:{self.cloud.config.compute.name}",
            "environment": f"azureml:{self.environment.name}:{self.environment.version}",
            "command": " ".join([command, *request.extra()]),
            "inputs.recipe": self.recipe,
            "inputs.train_file.path": str(request.train_file.resolve()),
            "inputs.eval_file.path": str(request.eval_file.resolve()),
            "outputs.checkpoints.path": CHECKPOINTS.format(digest=self.digest),
            "resources.instance_count": request.instances,
        }
        each = 1 if request.cpu else self._gpus()
        if request.instances * each > 1:
            filled["distribution"] = {"type": "pytorch", "process_count_per_instance": each}
        return load_job(JOB_FILE, params_override=[{name: value} for name, value in filled.items()])

    def _gpus(self) -> int:
        """How many GPUs a node of the cluster has; 1 where Azure does not say."""
        config = self.cloud.config
        sizes = self.cloud.ml.compute.list_sizes(location=config.azure.location)
        ours = config.compute.size.lower()
        return max((size.gpus or 1 for size in sizes if size.name.lower() == ours), default=1)

    def follow(self) -> None:
        """Print the job's log as it comes, until it ends.

        Raises:
            OpsError: it did not complete.
        """
        with named_errors(f"following {self.name}"):
            from azure.ai.ml.exceptions import JobException

            try:
                self.cloud.ml.jobs.stream(self.name)
            except JobException as error:
                if isinstance(error.__cause__, KeyboardInterrupt):
                    raise KeyboardInterrupt from error  # the SDK makes a Ctrl-C its own; the job runs on
                raise OpsError(
                    f"the job {self.name} failed", _studio(self.cloud, self.name)
                ) from error
        require_completed(self.cloud, self.name)


def require_completed(cloud: Cloud, name: str) -> Any:
    """The job of that name.

    Raises:
        OpsError: there is none, or it has not completed.
    """
    with named_errors(f"reading the job {name}"):
        job = find_resource(lambda: cloud.ml.jobs.get(name))
    if job is None:
        raise OpsError(f"there is no job {name}", "Submit one with `phi3 finetune`.")
    if job.status != COMPLETED:
        raise OpsError(f"the job {name} is {job.status}, not {COMPLETED}", _studio(cloud, name))
    return job


def latest_completed(cloud: Cloud) -> str:
    """The name of the newest completed job that this product submitted.

    Raises:
        OpsError: there is none.
    """
    with named_errors("listing the jobs"):
        ours = [job for job in cloud.ml.jobs.list() if str(job.name).startswith(JOB_PREFIX)]
    completed = [job for job in ours if job.status == COMPLETED]
    if not completed:
        fix = "Run `phi3 finetune --follow` first."
        raise OpsError("no fine-tuning job has completed yet", fix)
    # Nothing is promised about the order of the list.
    return str(max(completed, key=lambda job: job.creation_context.created_at).name)


def _studio(cloud: Cloud, name: str) -> str:
    workspace = cloud.config.azure.workspace
    return f"See its logs: az ml job stream --name {name} --workspace-name {workspace}."


def _code_files() -> Iterator[Path]:
    for file in paths.TRAINING.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


def _uploaded(recipe: Path) -> str:
    """The recipe's path as the job sees it: only scripts/training is uploaded."""
    try:
        return recipe.resolve().relative_to(paths.TRAINING).as_posix()
    except ValueError as error:
        fix = f"Put it into {paths.TRAINING / 'recipes'}: only that folder is uploaded."
        raise OpsError(f"{recipe} lies outside the training folder", fix) from error


def _digest(parts: Iterable[bytes]) -> str:
    return parts_sha256(parts)[:HASH_LENGTH]
