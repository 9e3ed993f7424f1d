"""Batches on a cluster: a flow in an Azure ML pipeline with one parallel step.

The nodes run an image of this project and the entry script scripts/azure/batch/entry.py, which runs the
lines with the engine of `phi3_tools.flow`. Contracts: "Use parallel jobs in pipelines" and "CLI (v2)
parallel job YAML schema".
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_tools.flow import FlowError, load_flow

from .. import paths
from ..azure import (
    ENDED_BADLY,
    Cloud,
    Plan,
    Step,
    connection_reader_step,
    find_resource,
    follow_job,
)
from ..errors import OpsError
from ..files import write_json, write_jsonl
from ..flows import build_tool_wheel, copy_flow, read_dag_file, refuse_secrets, write_dag_file
from ..hashing import sha256_hex
from ..pf import LINE_NUMBER
from ..publish import shared_connection
from ..runs import OUTPUT_FOLDER
from ..yaml_files import load_yaml
from .outputs import Download, downloads_stay_inside, read_cluster_outputs
from .request import ClusterRequest
from .submission import BATCH_TAG, BatchSubmission, batch_digest

CONTEXT = paths.AZURE / "batch"
DOCKERFILE, ENTRY_SCRIPT, REQUIREMENTS = "Dockerfile", "entry.py", "requirements.txt"
ENVIRONMENT = "phi3-batch"
# It must differ from the prefix of fine-tuning's jobs: `phi3 deploy` uses the newest of those.
PREFIX = "batch-"
# Output of the step with one file per line that has ended. A mini-batch that runs again reads it.
PROGRESS_FOLDER = "progress"
TOKENS_FILE = "tokens.json"  # in the folder of a fetched run
ARGUMENTS = (
    f"--answers ${{{{outputs.{OUTPUT_FOLDER}}}}} --progress ${{{{outputs.{PROGRESS_FOLDER}}}}}"
)


class ClusterSubmission(BatchSubmission):
    """A batch that is submitted only once for the same flow, data and settings.

    Args:
        cloud: the workspace.
        request: what to run.

    Raises:
        OpsError: the data file cannot be read.
    """

    kind, prefix, option = "job", PREFIX, "--on-azure"
    request: ClusterRequest

    def __init__(self, cloud: Cloud, request: ClusterRequest) -> None:
        super().__init__(cloud, request)
        self.compute = request.compute or cloud.config.compute.name
        self.version = batch_digest(
            *(f"{name} {sha256_hex(content)}" for name, content in self._context().items())
        )
        self.digest = batch_digest(
            self.content_digest,
            self.version,
            sha256_hex((CONTEXT / ENTRY_SCRIPT).read_bytes()),
            request.title,
            self.compute,
            [request.mini_batch_size, request.threads, self._uses_cluster_identity],
            sorted(request.settings().items()),
        )

    @property
    def _uses_cluster_identity(self) -> bool:
        """Whether the cluster's identity reads the connections; otherwise the user's identity does."""
        return bool(self.cloud.config.azure.identity)

    def plan(self) -> Plan:
        """Return the steps: first the environment and the role, then the job.

        Raises:
            OpsError: the workspace lacks the cluster or a connection, the flow cannot run, or a file
                contains a key that this machine knows.
        """
        self._check_compute()
        self.check_connections()
        with tempfile.TemporaryDirectory() as folder:
            self._write_code(Path(folder) / "code")  # checks the flow before anything is created
        steps = [
            Step(
                f"environment {ENVIRONMENT}:{self.version}",
                lambda: find_resource(self._get_environment) is not None,
                self._create_environment,
            ),
            Step(self._description(), self.exists, self._submit, verb="submit"),
        ]
        if self._uses_cluster_identity and self.request.connection_names:
            steps.insert(1, connection_reader_step(self.cloud))
        return Plan("run", steps)

    def _check_compute(self) -> None:
        cluster = find_resource(lambda: self.cloud.ml.compute.get(self.compute))
        if cluster is None:
            where = self.cloud.config.azure.workspace
            fix = "Create it with `phi3 provision`, or choose another with --compute."
            raise OpsError(f"the workspace {where} has no cluster {self.compute!r}", fix)
        if self._uses_cluster_identity and cluster.identity is None:
            what = f"the cluster {self.compute} has no identity, which `azure.identity: true` needs"
            fix = "Delete the cluster and run `phi3 provision`, or set azure.identity to false."
            raise OpsError(what, fix)

    def check_connections(self) -> None:
        super().check_connections()
        if not self._uses_cluster_identity:
            # The job will read the connections with this user's identity, so they are read here first.
            for name in sorted(set(self.request.connection_names.values())):
                shared_connection(self.cloud, name)

    def _description(self) -> str:
        request = self.request
        lines = (
            f"{len(self.rows)} lines of {request.data} through {request.flow.folder.resolve().name}"
        )
        where = (
            f"{self.compute} x {request.instances}, {request.mini_batch_size} lines per mini-batch"
        )
        return f"job {PREFIX}{self.digest} ({lines}, on {where})"

    # -- upload ------------------------------------------------------------------------------------

    def _context(self) -> dict[str, bytes]:
        """Return the files from which the image of the environment is built."""
        wheel = build_tool_wheel()
        base = (CONTEXT / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
        requirements = [f"/phi3/{wheel.name}[flow]", *base]
        requirements += _flow_requirements(self.request.flow.folder)
        return {
            DOCKERFILE: (CONTEXT / DOCKERFILE).read_bytes(),
            wheel.name: wheel.content,
            REQUIREMENTS: "\n".join([*requirements, ""]).encode(),
        }

    def _get_environment(self) -> Any:
        return self.cloud.ml.environments.get(ENVIRONMENT, version=self.version)

    def _create_environment(self) -> None:
        from azure.ai.ml.entities import BuildContext, Environment

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / ENVIRONMENT  # the name is part of the upload's address
            folder.mkdir()
            for name, content in self._context().items():
                (folder / name).write_bytes(content)
            self.cloud.ml.environments.create_or_update(
                Environment(
                    name=ENVIRONMENT,
                    version=self.version,
                    description="The engine for flows and its tools, for distributed batches.",
                    build=BuildContext(path=folder),
                )
            )

    def _submit(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.cloud.ml.jobs.create_or_update(self.job(Path(folder)))

    def job(self, folder: Path) -> Any:
        """Return the pipeline, which has one parallel step.

        Args:
            folder: an empty folder for the code and the data.

        Raises:
            OpsError: the flow cannot run, or a file contains a key that this machine knows.
        """
        from azure.ai.ml import Input

        lines = folder / "lines"
        self._write_mini_batches(lines)
        pipeline = self._pipeline(self._step(self._write_code(folder / "code")))
        job = pipeline(lines=Input(type="uri_folder", path=str(lines), mode="ro_mount"))
        for output in job.outputs.values():
            output.mode = "rw_mount"
        job.name, job.display_name = self.name, self.request.title
        job.experiment_name = ENVIRONMENT
        job.tags = {**self.cloud.tags(), BATCH_TAG: self.content_digest}
        job.settings.force_rerun = True
        return job

    def _write_mini_batches(self, folder: Path) -> None:
        """Write one file per mini-batch. A row has the number of its line and the inputs of the flow."""
        folder.mkdir()
        rows = [
            {LINE_NUMBER: line, "inputs": self.request.inputs_of(row)}
            for line, row in enumerate(self.rows)
        ]
        size = self.request.mini_batch_size
        for index, start in enumerate(range(0, len(rows), size)):
            write_jsonl(folder / f"{index:06}.jsonl", rows[start : start + size])

    def _write_code(self, folder: Path) -> Path:
        """Write the code of the job: the entry script, and the flow with the connections it uses."""
        flow = copy_flow(self.request.flow.folder, folder / "flow")
        refuse_secrets(flow)
        shutil.copyfile(CONTEXT / ENTRY_SCRIPT, folder / ENTRY_SCRIPT)
        dag = flow / "flow.dag.yaml"
        _check_flow(self.request.flow.folder)
        if self.request.connections:
            content = read_dag_file(dag)
            for node in content["nodes"]:
                node.setdefault("inputs", {}).update(self.request.connections.get(node["name"], {}))
            write_dag_file(dag, content)
        return folder

    def _step(self, code: Path) -> Any:
        """Return the parallel step."""
        from azure.ai.ml import Input, Output
        from azure.ai.ml.entities import ManagedIdentityConfiguration, UserIdentityConfiguration
        from azure.ai.ml.parallel import RunFunction, parallel_run_function

        identity: Any = (
            ManagedIdentityConfiguration()
            if self._uses_cluster_identity
            else UserIdentityConfiguration()
        )
        outputs = (OUTPUT_FOLDER, PROGRESS_FOLDER)
        return parallel_run_function(
            name="answers",
            inputs={"lines": Input(type="uri_folder", mode="ro_mount")},
            outputs={name: Output(type="uri_folder", mode="rw_mount") for name in outputs},
            input_data="${{inputs.lines}}",
            compute=self.compute,
            identity=identity,
            is_deterministic=False,  # the endpoint may have changed the next time
            task=RunFunction(
                code=str(code),
                entry_script=ENTRY_SCRIPT,
                environment=f"azureml:{ENVIRONMENT}:{self.version}",
                program_arguments=f"{ARGUMENTS} --threads {self.request.threads}",
            ),
            **self.request.settings(),
        )

    def _pipeline(self, step: Any) -> Callable[..., Any]:
        from azure.ai.ml import dsl

        @dsl.pipeline()
        def batch_of(lines):  # type: ignore[no-untyped-def]  # the SDK reads annotations
            answers = step(lines=lines)
            for output in answers.outputs.values():
                output.mode = "rw_mount"  # several nodes write to the same output
            return {name: answers.outputs[name] for name in (OUTPUT_FOLDER, PROGRESS_FOLDER)}

        return batch_of  # type: ignore[no-any-return]

    # -- download ----------------------------------------------------------------------------------

    def find(self, name: str) -> Any | None:
        return find_resource(lambda: self.cloud.ml.jobs.get(name))

    def follow(self) -> bool:
        """Print the log of the job until it ends, and return whether it completed.

        A batch ends as a failed job if the endpoint failed, and still has the answers of the other lines.
        """
        try:
            follow_job(self.cloud, self.name)
        except OpsError:
            if self.status(self.name) not in ENDED_BADLY:
                raise
            return False
        return True

    def download(self, name: str, folder: Path) -> Download:
        """Download the answers; if lines are missing, also those of mini-batches that never ended."""
        outputs, files = folder / "outputs", folder / "files"
        download = self._download_output(name, outputs, OUTPUT_FOLDER)
        if len(download.answers) + len(download.errors) < len(self.rows):
            download = self._download_output(name, outputs, PROGRESS_FOLDER)
        files.mkdir()
        write_json(files / TOKENS_FILE, dict(download.token_counts))
        return replace(download, files=files)

    def _download_output(self, name: str, folder: Path, output: str) -> Download:
        with downloads_stay_inside():
            self.cloud.ml.jobs.download(name, download_path=folder, output_name=output)
        return read_cluster_outputs(folder, len(self.rows))

    def token_counts(self, folder: Path) -> dict[str, int]:
        file = folder / TOKENS_FILE
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _check_flow(folder: Path) -> None:
    """Raise OpsError if the engine cannot run a flow, or if files outside its folder belong to it."""
    try:
        content = load_yaml(folder / "flow.dag.yaml")
        if content.get("additional_includes"):
            what = f"{folder}: a batch on a cluster does not support `additional_includes`"
            raise OpsError(what, "Copy the included files into the folder of the flow.")
        load_flow(folder)
    except FlowError as error:
        raise OpsError(f"{folder} cannot run: {error}") from error


def _flow_requirements(flow: Path) -> list[str]:
    """Return the lines of the requirements file that the flow's flow.dag.yaml names."""
    definition: Any = load_yaml(flow / "flow.dag.yaml")
    name = (definition.get("environment") or {}).get("python_requirements_txt")
    if not name:
        return []
    try:
        return list((flow / str(name)).read_text(encoding="utf-8").splitlines())
    except OSError as error:
        what = f"cannot read {flow / name}: {error.strerror}"
        raise OpsError(what, "Create it, or remove its name from flow.dag.yaml.") from error
