"""Batches on Azure, be they jobs on a cluster or runs of prompt flow's service: what is asked for, what
it is found again by, and how it comes back."""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import paths
from ..azure import (
    COMPLETED,
    CONNECTIONS_API_VERSION,
    ENDED_BADLY,
    HASH_LENGTH,
    Cloud,
    Plan,
    find_resource,
    named_errors,
    newest_attempt,
)
from ..errors import OpsError
from ..files import read_jsonl
from ..flows import FlowDefinition, content_hash
from ..hashing import sha256_hex
from ..runs import DEFAULT_IN_FLIGHT, ENDPOINTS_PROPERTY, Batch, describe_connection, load_batch
from .outputs import OUTPUT_FOLDER, Download, register_run, write_run_folder

FETCHED_FOLDER = paths.WORKDIR / "batches"
BATCH_TAG = "batch"


@dataclass(frozen=True)
class BatchRequest:
    """What to run.

    Attributes:
        flow: the flow.
        data: JSONL, one line a row.
        columns: flow input -> `${data.x}` or a constant.
        title: what the batch is called in lists.
        connections: node -> input -> connection of the workspace, in place of the flow's.
        in_flight: lines at once.
    """

    flow: FlowDefinition
    data: Path
    columns: Mapping[str, str]
    title: str
    connections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    in_flight: int = DEFAULT_IN_FLIGHT

    @property
    def names(self) -> dict[str, str]:
        """Node -> its connection in the workspace."""
        return self.flow.connection_names(self.connections)


class BatchSubmission(ABC):
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

    def __init__(self, cloud: Cloud, request: BatchRequest) -> None:
        self.cloud = cloud
        self.request = request
        self.rows = read_jsonl(request.data)
        if not self.rows:
            raise OpsError(f"{request.data} has no lines", "Give it one JSON object a line.")
        content = content_hash(request.flow.folder)
        self.asked = batch_digest(
            content, self.rows, sorted(request.columns.items()), request.names
        )
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
    def download(self, name: str, place: Path) -> Download:
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
        self._name, batch = newest_attempt(first, self.kind, self.find)
        return batch is not None

    def status(self, name: str) -> str:
        """The status of the batch of that name.

        Raises:
            OpsError: there is none, or it ran something else.
        """
        found = self.find(name)
        if found is None:
            fix = f"Submit it with `phi3 run {self.option}`."
            raise OpsError(f"there is no {self.kind} {name}", fix)
        if (found.tags or {}).get(BATCH_TAG) != self.asked:
            fix = "Give the flow, the data and the columns that it was submitted with."
            raise OpsError(f"the {self.kind} {name} ran another flow or other data", fix)
        return str(found.status)

    def fetch(self, name: str) -> Batch:
        """Bring a batch's outputs into prompt flow's store, as a run of its name.

        Lines that are not among them have failed. What was fetched once is not fetched again.

        Raises:
            OpsError: the batch has not ended or ran something else, or its outputs cannot be read.
        """
        status = self.status(name)
        if status != COMPLETED and status not in ENDED_BADLY:
            fix = "Run the same command with --follow, or later."
            raise OpsError(f"the {self.kind} {name} is {status}", fix)
        folder = FETCHED_FOLDER / name
        if not (folder / OUTPUT_FOLDER).is_dir():
            with tempfile.TemporaryDirectory() as place, named_errors(f"downloading {name}"):
                brought = self.download(name, Path(place))
                write_run_folder(folder, self.request, self.rows, brought)
        # Of this machine's connections nothing is said: the workspace's were asked.
        asked = {ENDPOINTS_PROPERTY: json.dumps(self._endpoints())}
        register_run(name, folder, self.request, {**asked, **self.properties(folder)})
        return load_batch(name)

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
        return find_resource(lambda: self.cloud.rest("GET", path, api=CONNECTIONS_API_VERSION))

    def _endpoints(self) -> dict[str, dict[str, str]]:
        """Node -> what its connection in the workspace says; secrets are not asked for."""
        found = {}
        for node, name in self.request.names.items():
            properties = (self._connection(name) or {}).get("properties") or {}
            found[node] = describe_connection(name, properties.get("metadata") or {})
        return found


def batch_digest(*parts: Any) -> str:
    """The start of a SHA-256 over the JSON of what a batch is made of, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return sha256_hex(text.encode("utf-8", "surrogatepass"))[:HASH_LENGTH]
