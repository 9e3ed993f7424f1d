"""Batches on a cluster: a flow as a parallel component of an Azure ML pipeline, its outputs brought back.

The contract is prompt flow's "Use flow in Azure ML pipeline job" and its notebook "Run flows in Azure ML
pipeline": the component's ports (`data`, `connections.NODE.INPUT`, one for each input of the flow), its
run settings, and the one output file, `parallel_run_step.jsonl`. Each mini-batch is run by the package
promptflow-parallel, line after line; a line that fails makes its whole mini-batch fail.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..azure import ENDED_BADLY, Cloud, Plan, Step, find_resource
from ..errors import OpsError, first_line
from ..files import write_jsonl
from ..flows import build_tool_wheel, copy_flow
from ..hashing import sha256_hex
from ..pf import LINE_NUMBER, pf_client
from ..training import JobSubmission
from .outputs import OUTPUT_FOLDER, Download, join_outputs
from .submission import BATCH_TAG, BatchRequest, BatchSubmission, batch_digest

CONTEXT = paths.AZURE / "batch"
ENVIRONMENT = "phi3-batch"
# Not as fine-tuning's jobs begin: `phi3 deploy` takes the newest of those.
PREFIX = "batch-"
RESERVED = ("data", "connections", OUTPUT_FOLDER)  # the component's own ports
LINE_S = 600  # what prompt flow's own engine gives a line
MOST_TIMEOUT_S = 259200  # Azure's most for a mini-batch
PARALLEL = "promptflow-parallel==0.1.0"


@dataclass(frozen=True)
class ClusterRequest(BatchRequest):
    """What to run, and how it is spread; `in_flight` lines at once are on all nodes together.

    Attributes:
        compute: the cluster; None takes the configuration's.
        instances: nodes.
        mini_batch_size: lines that one process gets at a time, runs one after another and repeats
            together.
        retries: how often a mini-batch that failed is run again.
    """

    compute: str | None = None
    instances: int = 1
    mini_batch_size: int = 10
    retries: int = 3

    def settings(self) -> dict[str, Any]:
        """The parallel step's run settings. No failure is passed over: Azure's own default is to pass
        over all of them."""
        return {
            "resources": {"instance_count": self.instances},
            "max_concurrency_per_instance": math.ceil(self.in_flight / self.instances),
            "mini_batch_size": self.mini_batch_size,
            "retry_settings": {
                "max_retries": self.retries,
                "timeout": min(self.mini_batch_size * LINE_S, MOST_TIMEOUT_S),
            },
            "error_threshold": 0,
            "mini_batch_error_threshold": 0,
            "environment_variables": {"PF_INPUT_FORMAT": "jsonl"},
        }


class ClusterSubmission(BatchSubmission):
    """A batch that is submitted once for the same flow, data and settings.

    Args:
        cloud: where to.
        request: what to run.

    Raises:
        OpsError: the data file cannot be read, or an input of the flow is called as a port of the
            component.
    """

    kind, prefix, option = "job", PREFIX, "--on-azure"
    request: ClusterRequest

    def __init__(self, cloud: Cloud, request: ClusterRequest) -> None:
        if taken := sorted(set(request.columns) & set(RESERVED)):
            fix = "Azure's parallel component has an input of that name itself: rename the flow's."
            raise OpsError(f"{request.flow.folder}: the input {taken[0]!r}", fix)
        super().__init__(cloud, request)
        self.compute = request.compute or cloud.config.compute.name
        self.version = batch_digest(
            *(f"{name} {sha256_hex(content)}" for name, content in self._context().items())
        )
        self.digest = batch_digest(
            self.asked,
            self.version,
            request.title,
            self.compute,
            sorted(request.settings().items()),
        )

    def plan(self) -> Plan:
        """Environment, then job.

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
            Step(self._what(), self.exists, self._submit, verb="submit"),
        ]
        return Plan("run", steps)

    def _check_compute(self) -> None:
        if find_resource(lambda: self.cloud.ml.compute.get(self.compute)) is None:
            where = self.cloud.config.azure.workspace
            fix = "Make it with `phi3 provision`, or name another with --compute."
            raise OpsError(f"the workspace {where} has no cluster {self.compute!r}", fix)

    def _what(self) -> str:
        request = self.request
        lines = (
            f"{len(self.rows)} lines of {request.data} through {request.flow.folder.resolve().name}"
        )
        where = (
            f"{self.compute} x {request.instances}, {request.mini_batch_size} lines a mini-batch"
        )
        return f"job {PREFIX}{self.digest} ({lines}, on {where})"

    # -- what is uploaded --------------------------------------------------------------------------

    def _context(self) -> dict[str, bytes]:
        """The files that the environment's image is built from."""
        wheel = build_tool_wheel()
        own = _requirements(self.request.flow.folder)
        requirements = "\n".join([f"/phi3/{wheel.name}", PARALLEL, *own, ""])
        dockerfile = (CONTEXT / "Dockerfile").read_bytes()
        return {
            "Dockerfile": dockerfile,
            wheel.name: wheel.content,
            "requirements.txt": requirements.encode(),
        }

    def _get_environment(self) -> Any:
        return self.cloud.ml.environments.get(ENVIRONMENT, version=self.version)

    def _create_environment(self) -> None:
        from azure.ai.ml.entities import BuildContext, Environment

        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / ENVIRONMENT  # which is part of the address
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
        """The pipeline of one parallel step, whose flow and data are staged in a folder."""
        from azure.ai.ml import Input, dsl, load_component

        request = self.request
        data = folder / "data.jsonl"
        # With its line's number in each row, which promptflow-parallel then takes: whatever a mini-batch
        # holds, the outputs say which line they answer.
        write_jsonl(data, ({**r, LINE_NUMBER: n} for n, r in enumerate(self.rows)))
        overrides = {
            "type": "promptflow_parallel",  # the SDK would take the flow's own type for it
            "azureml": {
                "environment": f"azureml:{ENVIRONMENT}:{self.version}",
                "is_deterministic": False,  # the endpoint may be another one the next time
            },
        }
        component = load_component(
            # Its folder's name becomes the component's, for which not every flow's is fit.
            _staged(request.flow.folder, folder / "flow") / "flow.dag.yaml",
            params_override=[{key: value} for key, value in overrides.items()],
        )
        connections = {node: {"connection": name} for node, name in request.names.items()}

        @dsl.pipeline()
        def batch_of(data):  # type: ignore[no-untyped-def]  # the SDK reads annotations
            answers = component(data=data, connections=connections, **request.columns)
            answers.compute = self.compute
            for name, value in request.settings().items():
                setattr(answers, name, value)
            for output in answers.outputs.values():
                output.mode = "rw_mount"  # what several nodes write together
            return {OUTPUT_FOLDER: answers.outputs[OUTPUT_FOLDER]}

        made = batch_of(data=Input(type="uri_file", path=str(data), mode="ro_mount"))
        made.outputs[OUTPUT_FOLDER].mode = "rw_mount"
        made.name, made.display_name = self.name, request.title
        made.experiment_name = ENVIRONMENT
        made.tags = {**self.cloud.tags(), BATCH_TAG: self.asked}
        made.settings.force_rerun = True
        return made

    # -- what comes back ---------------------------------------------------------------------------

    def find(self, name: str) -> Any | None:
        return find_resource(lambda: self.cloud.ml.jobs.get(name))

    def follow(self) -> bool:
        """Print the job's log until it ends; whether it completed.

        A batch with failed lines ends as a failed job, and still has the other lines' answers.
        """
        try:
            JobSubmission.follow(self)  # type: ignore[arg-type]  # needs the cloud and the name alone
        except OpsError:
            if self.status(self.name) not in ENDED_BADLY:
                raise
            return False
        return True

    def download(self, name: str, place: Path) -> Download:
        self.cloud.ml.jobs.download(name, download_path=place, output_name=OUTPUT_FOLDER)
        return Download(join_outputs(place, len(self.rows)))


def _staged(flow: Path, target: Path) -> Path:
    """A copy of a flow with `.promptflow/flow.tools.json`, which the component needs."""
    copy_flow(flow, target)
    client = pf_client()
    try:
        client.flows.validate(target, raise_error=True)
    except Exception as error:  # promptflow has no base class for what a tool's import can raise
        raise OpsError(
            f"{flow} is not valid: {first_line(error)}", "See `pf flow validate`."
        ) from error
    return target


def _requirements(flow: Path) -> list[str]:
    """What the flow itself asks for, from the file that its flow.dag.yaml names."""
    definition: Any = yaml.safe_load((flow / "flow.dag.yaml").read_text(encoding="utf-8"))
    name = (definition.get("environment") or {}).get("python_requirements_txt")
    if not name:
        return []
    try:
        return list((flow / str(name)).read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise OpsError(f"{flow / name}: {error.strerror}", "flow.dag.yaml names it.") from error
