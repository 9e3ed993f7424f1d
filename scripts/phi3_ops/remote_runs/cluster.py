"""Batches on a cluster: a flow as a parallel component of an Azure ML pipeline.

The contract is Prompt flow's "Use flow in Azure ML pipeline job" and its notebook "Run flows in Azure ML
pipeline". They define the ports of the component (`data`, `connections.NODE.INPUT`, one per input of the
flow), its run settings and its one output file, `parallel_run_step.jsonl`. The package
promptflow-parallel runs each mini-batch, line after line. A line that fails makes its whole mini-batch
fail.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import paths
from ..azure import ENDED_BADLY, Cloud, Plan, Step, find_resource, follow_job
from ..errors import OpsError, first_line
from ..files import write_jsonl
from ..flows import build_tool_wheel, copy_flow, refuse_secrets
from ..hashing import sha256_hex
from ..pf import LINE_NUMBER, pf_client
from ..runs import OUTPUT_FOLDER
from ..yaml_files import load_yaml
from .outputs import Download, downloads_stay_inside, join_outputs
from .request import ClusterRequest
from .submission import BATCH_TAG, BatchSubmission, batch_digest

CONTEXT = paths.AZURE / "batch"
ENVIRONMENT = "phi3-batch"
# It must differ from the prefix of fine-tuning's jobs: `phi3 deploy` uses the newest of those.
PREFIX = "batch-"
RESERVED = ("data", "connections", OUTPUT_FOLDER)  # the component's own ports
PARALLEL = "promptflow-parallel==0.1.0"


class ClusterSubmission(BatchSubmission):
    """A batch that is submitted only once for the same flow, data and settings.

    Args:
        cloud: the workspace.
        request: what to run.

    Raises:
        OpsError: the data file cannot be read, or an input of the flow has the name of a port of the
            component.
    """

    kind, prefix, option = "job", PREFIX, "--on-azure"
    request: ClusterRequest

    def __init__(self, cloud: Cloud, request: ClusterRequest) -> None:
        if taken := sorted(set(request.columns) & set(RESERVED)):
            what = f"{request.flow.folder}: the input {taken[0]!r} has a reserved name"
            fix = "Rename it: Azure's parallel component has an input of that name itself."
            raise OpsError(what, fix)
        super().__init__(cloud, request)
        self.compute = request.compute or cloud.config.compute.name
        self.version = batch_digest(
            *(f"{name} {sha256_hex(content)}" for name, content in self._context().items())
        )
        self.digest = batch_digest(
            self.content_digest,
            self.version,
            request.title,
            self.compute,
            sorted(request.settings().items()),
        )

    def plan(self) -> Plan:
        """Return the steps: first the environment, then the job.

        Raises:
            OpsError: the workspace lacks the cluster or a connection.
        """
        self._check_compute()
        self.check_connections()
        steps = [
            Step(
                f"environment {ENVIRONMENT}:{self.version}",
                lambda: find_resource(self._get_environment) is not None,
                self._create_environment,
            ),
            Step(self._description(), self.exists, self._submit, verb="submit"),
        ]
        return Plan("run", steps)

    def _check_compute(self) -> None:
        if find_resource(lambda: self.cloud.ml.compute.get(self.compute)) is None:
            where = self.cloud.config.azure.workspace
            fix = "Create it with `phi3 provision`, or choose another with --compute."
            raise OpsError(f"the workspace {where} has no cluster {self.compute!r}", fix)

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
        requirements = [
            f"/phi3/{wheel.name}[promptflow]",
            PARALLEL,
            *_requirements(self.request.flow.folder),
        ]
        return {
            "Dockerfile": (CONTEXT / "Dockerfile").read_bytes(),
            wheel.name: wheel.content,
            "requirements.txt": "\n".join([*requirements, ""]).encode(),
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
                    description="Prompt flow with this package's tools, for distributed batches.",
                    build=BuildContext(path=folder),
                )
            )

    def _submit(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.cloud.ml.jobs.create_or_update(self.job(Path(folder)))

    def job(self, folder: Path) -> Any:
        """Return the pipeline, which has one parallel step.

        Args:
            folder: an empty folder for the flow and the data.
        """
        from azure.ai.ml import Input

        data = folder / "data.jsonl"
        # Each row has its line number, which promptflow-parallel copies to the output: so the outputs
        # can be assigned to lines, however the mini-batches are cut.
        write_jsonl(data, ({**row, LINE_NUMBER: n} for n, row in enumerate(self.rows)))
        pipeline = self._pipeline(self._component(folder / "flow"))
        job = pipeline(data=Input(type="uri_file", path=str(data), mode="ro_mount"))
        job.outputs[OUTPUT_FOLDER].mode = "rw_mount"
        job.name, job.display_name = self.name, self.request.title
        job.experiment_name = ENVIRONMENT
        job.tags = {**self.cloud.tags(), BATCH_TAG: self.content_digest}
        job.settings.force_rerun = True
        return job

    def _component(self, folder: Path) -> Any:
        """Return the flow as a component.

        Args:
            folder: folder for a copy of the flow. Azure names the component after it, and not every
                flow's name is allowed.
        """
        from azure.ai.ml import load_component

        overrides = {
            "type": "promptflow_parallel",  # otherwise, the SDK reads the type of the flow
            "azureml": {
                "environment": f"azureml:{ENVIRONMENT}:{self.version}",
                "is_deterministic": False,  # the endpoint may have changed the next time
            },
        }
        return load_component(
            _copy_with_tools(self.request.flow.folder, folder) / "flow.dag.yaml",
            params_override=[{key: value} for key, value in overrides.items()],
        )

    def _pipeline(self, component: Any) -> Callable[..., Any]:
        from azure.ai.ml import dsl

        request = self.request
        connections = {
            node: {"connection": name} for node, name in request.connection_names.items()
        }

        @dsl.pipeline()
        def batch_of(data):  # type: ignore[no-untyped-def]  # the SDK reads annotations
            answers = component(data=data, connections=connections, **request.columns)
            answers.compute = self.compute
            for name, value in request.settings().items():
                setattr(answers, name, value)
            for output in answers.outputs.values():
                output.mode = "rw_mount"  # several nodes write to the same output
            return {OUTPUT_FOLDER: answers.outputs[OUTPUT_FOLDER]}

        return batch_of  # type: ignore[no-any-return]

    # -- download ----------------------------------------------------------------------------------

    def find(self, name: str) -> Any | None:
        return find_resource(lambda: self.cloud.ml.jobs.get(name))

    def follow(self) -> bool:
        """Print the log of the job until it ends, and return whether it completed.

        A batch with failed lines ends as a failed job, and still has the answers of the other lines.
        """
        try:
            follow_job(self.cloud, self.name)
        except OpsError:
            if self.status(self.name) not in ENDED_BADLY:
                raise
            return False
        return True

    def download(self, name: str, folder: Path) -> Download:
        with downloads_stay_inside():
            self.cloud.ml.jobs.download(name, download_path=folder, output_name=OUTPUT_FOLDER)
        return Download(join_outputs(folder, len(self.rows)))


def _copy_with_tools(flow: Path, target: Path) -> Path:
    """Copy a flow, add the `.promptflow/flow.tools.json` that a component needs, and return the copy.

    Raises:
        OpsError: promptflow refuses the flow, or a file contains a key that this machine knows.
    """
    copy_flow(flow, target)
    refuse_secrets(target)
    try:
        pf_client().flows.validate(target, raise_error=True)
    except Exception as error:  # importing a tool can raise anything
        what = f"{flow} is not a valid flow: {first_line(error)}"
        raise OpsError(what, f"See `pf flow validate --source {flow}`.") from error
    return target


def _requirements(flow: Path) -> list[str]:
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
