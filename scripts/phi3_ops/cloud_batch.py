"""Batches on Azure, be they jobs on a cluster or runs of prompt flow's service: what is asked for, what
it is found again by, and how it comes back."""

from __future__ import annotations

import hashlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import azure_outputs, batch, flows, job, paths, run_properties
from .azure_outputs import OUTPUT, Brought
from .cloud import CONNECTIONS_API, Cloud, find, named_errors
from .errors import OpsError
from .files import read_jsonl
from .flow_file import FlowFile
from .plan import Plan

FETCHED = paths.WORKDIR / "batches"
TAG = "batch"


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        flow: the flow.
        data: JSONL, one line a row.
        columns: flow input -> `${data.x}` or a constant.
        title: what the batch is called in lists.
        connections: node -> input -> connection of the workspace, in place of the flow's.
        in_flight: lines at once.
    """

    flow: FlowFile
    data: Path
    columns: Mapping[str, str]
    title: str
    connections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    in_flight: int = batch.IN_FLIGHT

    @property
    def names(self) -> dict[str, str]:
        """Node -> its connection in the workspace."""
        return self.flow.connection_names(self.connections)


class Submission(ABC):
    """A batch that is submitted once for the same flow, data and settings.

    Attributes:
        kind: what Azure calls it.
        prefix: how its name begins; its hash follows.
        option: of `phi3 run`, that submits it.
        asked: hash of what its lines were asked; a tag of it.
        digest: hash of that and of its settings; part of its name.

    Args:
        cloud: where to.
        request: what to run.

    Raises:
        OpsError: the data file cannot be read, or has no lines.
    """

    kind: str
    prefix: str
    option: str

    def __init__(self, cloud: Cloud, request: Request) -> None:
        self.cloud = cloud
        self.request = request
        self.rows = read_jsonl(request.data)
        if not self.rows:
            raise OpsError(f"{request.data} has no lines", "Give it one JSON object a line.")
        content = flows.content_hash(request.flow.folder)
        self.asked = digest(content, self.rows, sorted(request.columns.items()), request.names)
        self.digest = self.asked
        self._name: str | None = None

    @abstractmethod
    def plan(self) -> Plan:
        """What is made; raises OpsError where the workspace lacks something that it needs."""

    @abstractmethod
    def find(self, name: str) -> Any | None:
        """The batch of that name, with its `status` and `tags`, or None."""

    @abstractmethod
    def follow(self) -> bool:
        """Print its log until it ends; whether it completed."""

    @abstractmethod
    def download(self, name: str, place: Path) -> Brought:
        """The outputs of one that has ended, by way of a temporary folder."""

    @property
    def name(self) -> str:
        """Its name; one that failed under it is followed by `-2`, `-3`, …"""
        if self._name is None:
            self.exists()
        return str(self._name)

    def exists(self) -> bool:
        """Whether it was submitted, and has not failed since."""
        first = f"{self.prefix}{self.digest}"
        for attempt in range(1, job.MOST_TRIES):
            name = first + (f"-{attempt}" if attempt > 1 else "")
            found = self.find(name)
            if found is None or found.status not in job.ENDED_BADLY:
                self._name = name
                return found is not None
        raise OpsError(
            f"the {self.kind} {first} failed {job.MOST_TRIES} times", "Look at its logs."
        )

    def status(self, name: str) -> str:
        """The status of the batch of that name.

        Raises:
            OpsError: there is none, or it ran something else.
        """
        found = self.find(name)
        if found is None:
            fix = f"Submit it with `phi3 run {self.option}`."
            raise OpsError(f"there is no {self.kind} {name}", fix)
        if (found.tags or {}).get(TAG) != self.asked:
            fix = "Give the flow, the data and the columns that it was submitted with."
            raise OpsError(f"the {self.kind} {name} ran another flow or other data", fix)
        return str(found.status)

    def fetch(self, name: str) -> batch.Batch:
        """Bring a batch's outputs into prompt flow's store, as a run of its name.

        Lines that are not among them have failed. What was fetched once is not fetched again.

        Raises:
            OpsError: the batch has not ended or ran something else, or its outputs cannot be read.
        """
        status = self.status(name)
        if status != job.COMPLETED and status not in job.ENDED_BADLY:
            fix = "Run the same command with --follow, or later."
            raise OpsError(f"the {self.kind} {name} is {status}", fix)
        folder = FETCHED / name
        if not (folder / OUTPUT).is_dir():
            with tempfile.TemporaryDirectory() as place, named_errors(f"downloading {name}"):
                brought = self.download(name, Path(place))
                azure_outputs.write(folder, self.request, self.rows, brought)
        # Of this machine's connections nothing is said: the workspace's were asked.
        asked = {run_properties.ENDPOINTS: json.dumps(self._endpoints())}
        azure_outputs.register(name, folder, self.request, {**asked, **self.properties(folder)})
        return batch.load(name)

    def properties(self, folder: Path) -> dict[str, Any]:
        """What the run in prompt flow's store also remembers, from its folder."""
        return {}

    def check_connections(self) -> None:
        """Raises OpsError naming a connection that the flow needs and the workspace has not."""
        for name in sorted(set(self.request.names.values())):
            if self._connection(name) is None:
                where = self.cloud.config.azure.workspace
                fix = "Write it with `phi3 connect --azure`, or name another with --connection."
                raise OpsError(f"the workspace {where} has no connection {name!r}", fix)

    def _connection(self, name: str) -> Any | None:
        path = f"{self.cloud.workspace_path}/connections/{name}"
        return find(lambda: self.cloud.rest("GET", path, api=CONNECTIONS_API))

    def _endpoints(self) -> dict[str, dict[str, str]]:
        """Node -> what its connection in the workspace says; secrets are not asked for."""
        found = {}
        for node, name in self.request.names.items():
            properties = (self._connection(name) or {}).get("properties") or {}
            found[node] = run_properties.described(name, properties.get("metadata") or {})
        return found


def digest(*parts: Any) -> str:
    """The start of a SHA-256 over the JSON of what a batch is made of, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: job.HASH_LENGTH]
