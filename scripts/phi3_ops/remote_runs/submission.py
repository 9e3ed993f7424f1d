"""Batches on Azure, as jobs on a cluster or runs of Prompt flow's service: submit, find again, fetch."""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
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
    state_text,
)
from ..errors import OpsError
from ..files import read_jsonl
from ..flows import content_hash
from ..hashing import sha256_hex
from ..names import require_name
from ..runs import OUTPUT_FOLDER, Batch, ConnectionFacts, load_batch
from .outputs import Download, add_downloaded_run, write_downloaded_run
from .request import BatchRequest

FETCHED_FOLDER = paths.WORKDIR / "batches"
BATCH_TAG = "batch"  # its value is the submission's `content_digest`


class BatchSubmission(ABC):
    """A batch that is submitted only once for the same flow, data and settings.

    Attributes:
        kind: Azure's word for the batch.
        prefix: start of its name; `digest` follows.
        option: the option of `phi3 run` that submits it.
        rows: the rows of the data file.
        content_digest: hash of flow, data, columns and connections; a tag of the batch.
        digest: hash of `content_digest` and the settings; part of the batch's name.

    Args:
        cloud: the workspace.
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
            raise OpsError(f"{request.data} has no lines", "Write one JSON object per line.")
        self.content_digest = batch_digest(
            content_hash(request.flow.folder),
            self.rows,
            sorted(request.columns.items()),
            request.connection_names,
        )
        self.digest = self.content_digest
        self._name: str | None = None

    @abstractmethod
    def plan(self) -> Plan:
        """Return what would be created; raise OpsError if the workspace lacks something it needs."""

    @abstractmethod
    def find(self, name: str) -> Any | None:
        """Return the batch of that name, with its `status` and `tags`, or None."""

    @abstractmethod
    def follow(self) -> bool:
        """Print the log of the batch until it ends, and return whether it completed."""

    @abstractmethod
    def download(self, name: str, folder: Path) -> Download:
        """Download the outputs of a batch that has ended into a temporary folder."""

    @property
    def name(self) -> str:
        """Name of the batch. If a batch of that name failed, `-2` is appended, then `-3`, and so on."""
        if self._name is None:
            self.exists()
        return str(self._name)

    def exists(self) -> bool:
        """Return whether the batch was submitted and has not failed since."""
        first_name = f"{self.prefix}{self.digest}"
        self._name, batch = newest_attempt(first_name, self.kind, self.find)
        return batch is not None

    def is_completed(self, name: str) -> bool:
        """Return whether the batch of that name completed; raises what `status` raises."""
        return self.status(name) == COMPLETED

    def status(self, name: str) -> str:
        """Return the status of the batch of that name.

        Raises:
            OpsError: the batch does not exist, or it ran something else.
        """
        batch = self.find(name)
        if batch is None:
            fix = f"Submit it with `phi3 run {self.option}`."
            raise OpsError(f"the {self.kind} {name} does not exist", fix)
        if (batch.tags or {}).get(BATCH_TAG) != self.content_digest:
            fix = "Use the flow, the data and the columns with which it was submitted."
            raise OpsError(f"the {self.kind} {name} ran another flow or other data", fix)
        return state_text(batch.status)

    def fetch(self, name: str) -> Batch:
        """Download the outputs of a batch into Prompt flow's store, as a run of the same name.

        A line that is missing in the outputs has failed. Outputs that were fetched before are not
        fetched again.

        Raises:
            OpsError: the batch has not ended or ran something else, or its outputs cannot be read.
        """
        status = self.status(name)
        if status != COMPLETED and status not in ENDED_BADLY:
            fix = "Run the same command with --follow, or later."
            raise OpsError(f"the {self.kind} {name} is {status}", fix)
        folder = FETCHED_FOLDER / require_name(name, f"the {self.kind}'s name")
        if not (folder / OUTPUT_FOLDER).is_dir():
            with tempfile.TemporaryDirectory() as temporary, named_errors(f"downloading {name}"):
                download = self.download(name, Path(temporary))
                write_downloaded_run(folder, self.request, self.rows, download)
        add_downloaded_run(
            name,
            folder,
            self.request,
            # The workspace's connections were used, not those of this machine.
            endpoints=self._endpoints(),
            token_counts=self.token_counts(folder),
        )
        return load_batch(name)

    def token_counts(self, folder: Path) -> dict[str, int]:
        """Return the number of tokens that a run took, from its folder; empty if it is not known."""
        return {}

    def check_connections(self) -> None:
        """Raise OpsError if the workspace lacks a connection that the flow needs."""
        for name in sorted(set(self.request.connection_names.values())):
            if self._connection(name) is None:
                where = self.cloud.config.azure.workspace
                fix = "Create it with `phi3 connect --azure`, or choose another with --connection."
                raise OpsError(f"the workspace {where} has no connection {name!r}", fix)

    def _connection(self, name: str) -> Any | None:
        path = f"{self.cloud.workspace_path}/connections/{name}"
        return find_resource(lambda: self.cloud.rest("GET", path, api=CONNECTIONS_API_VERSION))

    def _endpoints(self) -> dict[str, ConnectionFacts]:
        """Return what the workspace says about the connection of each node, without secrets."""
        endpoints = {}
        for node, name in self.request.connection_names.items():
            properties = (self._connection(name) or {}).get("properties") or {}
            endpoints[node] = ConnectionFacts.of(name, properties.get("metadata") or {})
        return endpoints


def batch_digest(*parts: Any) -> str:
    """Return the start of the SHA-256 of the JSON of some values, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return sha256_hex(text.encode("utf-8", "surrogatepass"))[:HASH_LENGTH]
