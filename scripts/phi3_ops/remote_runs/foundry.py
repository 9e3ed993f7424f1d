"""Batches as `pfazure run` makes them: runs of an uploaded flow in a Foundry project or workspace.

The contract is promptflow-azure 1.18.5's. A run refers to the uploaded flow by its id (`azureml:ID`, the
"remote workspace flow"). Its data is uploaded to the blob storage of the workspace. The connections are
the workspace's. If a line fails, the run still completes, and the line's record contains the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from .. import paths
from ..azure import COMPLETED, ENDED_BADLY, Cloud, Plan, Step, find_resource
from ..errors import OpsError
from ..files import read_jsonl, write_json
from ..names import require_inside
from ..publish import FoundryProject, display_name, foundry_errors, require_locked
from ..runs import OUTPUT_FOLDER, SNAPSHOT, TOKEN_COUNTS
from ..terminal import VisibleLog, print_text
from ..waiting import wait_until
from .outputs import Download, pop_line_number
from .request import BatchRequest
from .submission import BATCH_TAG, BatchSubmission, batch_digest

FOUNDRY_RUN_PREFIX = "foundry-"
WORKERS = "PF_WORKER_COUNT"  # number of lines that Prompt flow's engine runs at once
POLL_S = 10.0  # Prompt flow's own interval
DOWNLOAD_S = 60  # for each answer of the run history and the data service
MAX_ATTEMPTS = 5  # to read the state of a run, if Azure does not answer
METADATA = "run_metadata.json"
MISSING_REASON = "not among the run's outputs: it was never run"
# Files with the records of lines. An older runtime writes them to the top folder.
RECORDS = ("flow_artifacts/*.jsonl", "[0-9]*_[0-9]*.jsonl")


class FoundrySubmission(BatchSubmission):
    """A run that is submitted only once for the same flow, data, columns, connections and title."""

    kind, prefix, option = "run", FOUNDRY_RUN_PREFIX, "--on-foundry"

    def __init__(self, cloud: Cloud, request: BatchRequest) -> None:
        super().__init__(cloud, request)
        self.project = FoundryProject(cloud)
        self.digest = batch_digest(self.content_digest, request.title)

    @property
    def _runs(self) -> Any:
        return self.project.client.runs

    def plan(self) -> Plan:
        """Return the one step.

        Raises:
            OpsError: the flow is not locked, its version is not uploaded, or the workspace lacks a
                connection.
        """
        request, where = self.request, self.cloud.config.azure.workspace
        folder = request.flow.folder.resolve()
        state = require_locked(folder.name, folder.parent)
        version = display_name(state)
        uploaded = self.project.find(state)
        if uploaded is None:
            is_shipped = folder.parent == paths.FLOWS.resolve()
            option = "" if is_shipped else f" --folder {folder.parent}"
            fix = f"Run `phi3 flow upload {state.name}{option}` first."
            raise OpsError(f"{version} is not uploaded to {where}", fix)
        self.check_connections()
        what = f"{len(self.rows)} lines of {request.data} through {version}, in {where}"
        return Plan(
            "run",
            [
                Step(
                    f"run {FOUNDRY_RUN_PREFIX}{self.digest} ({what})",
                    self.exists,
                    lambda: self._submit(str(uploaded.name)),
                    verb="submit",
                )
            ],
        )

    def find(self, name: str) -> Any | None:
        def get() -> Any:
            with foundry_errors():
                return self._runs.get(name)

        return find_resource(get)

    def _submit(self, flow: str) -> None:
        from promptflow.entities import Run

        request = self.request
        run = Run(
            flow=f"azureml:{flow}",
            name=self.name,
            display_name=request.title,
            data=str(request.data.resolve()),
            column_mapping=dict(request.columns),
            connections={
                node: {"connection": name} for node, name in request.connection_names.items()
            },
            environment_variables={WORKERS: str(request.in_flight)},
            tags={**self.cloud.tags(), BATCH_TAG: self.content_digest},
        )
        # The client prints the names of the files that it uploads.
        with foundry_errors(), contextlib.redirect_stdout(io.StringIO()):
            self._runs.create_or_update(run)

    def follow(self) -> bool:
        """Print the log of the run as it grows, until the run ends.

        Raises:
            OpsError: the run failed as a whole.
        """
        printed, status = 0, ""

        def print_news() -> str:
            nonlocal printed, status
            run, log = self._read_state()
            if run.status != status:
                status = run.status
                print_text(f"({status})")
            VisibleLog().write(log[printed:])
            printed = len(log)
            if status in ENDED_BADLY:
                raise _run_error(run)
            return status

        wait_until(print_news, COMPLETED.__eq__, timeout_s=math.inf, poll_s=POLL_S)
        return True

    def _read_state(self) -> tuple[Any, str]:
        """Return the run and its log so far; a request that Azure does not answer is repeated."""
        from azure.core.exceptions import AzureError

        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                with foundry_errors():
                    return self._runs.get(self.name), self._runs._get_log(self.name) or ""
            except AzureError as error:
                status = getattr(error, "status_code", None) or 500
                if attempt == MAX_ATTEMPTS or (status < 500 and status not in (408, 429)):
                    raise
            time.sleep(POLL_S)
        raise AssertionError

    def download(self, name: str, folder: Path) -> Download:
        run: Any = self.find(name)
        if run.status != COMPLETED:
            raise _run_error(run)
        with foundry_errors():
            asyncio.run(self._download_artifacts(name, folder))
            write_json(folder / "metrics.json", self._runs.get_metrics(name))
            log = self._runs._get_log(name) or ""
        (folder / "logs.txt").write_text(log, encoding="utf-8")
        return read_download(folder, len(self.rows))

    async def _download_artifacts(self, name: str, folder: Path) -> None:
        """Do what Prompt flow's `runs.download` does, with a client that checks certificates.

        Prompt flow's own client does not check them, so it would send the user's token to anybody.
        """
        import httpx
        from promptflow.azure.operations._async_run_downloader import AsyncRunDownloader

        downloader = AsyncRunDownloader._from_run_operations(self._runs, name, folder)
        download_blob = downloader._download_single_blob

        async def download_inside(blob: Any, path: Path | None = None) -> Any:
            require_inside(path or folder / blob.blob_name, folder, f"a file of the run {name}")
            return await download_blob(blob, path)

        downloader._download_single_blob = download_inside
        async with httpx.AsyncClient(timeout=DOWNLOAD_S) as client:
            try:
                await downloader._download_artifacts_and_snapshot(client)
            except Exception:
                # The downloader's other tasks still use the client, which is about to be closed.
                others = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.gather(*others, return_exceptions=True)
                raise

    def token_counts(self, folder: Path) -> dict[str, int]:
        properties = json.loads((folder / METADATA).read_text(encoding="utf-8")).get("properties")
        values = {
            name: str((properties or {}).get(f"azureml.promptflow.{name}")) for name in TOKEN_COUNTS
        }
        return {name: int(value) for name, value in values.items() if value.isdecimal()}


def _run_error(run: Any) -> OpsError:
    """Return the error for a run that failed as a whole, with Azure's reason."""
    error = (getattr(run, "_error", None) or {}).get("error") or {}
    message = " ".join(str(error.get("message") or "Azure does not say why").split())
    what = f"the run {run.name} is {run.status}: {message}"
    return OpsError(what, f"See {run._portal_url}." if run._portal_url else "")


def read_download(folder: Path, line_count: int) -> Download:
    """Read what Prompt flow's client downloaded of a run.

    Args:
        folder: the folder of the run. The files that are written again later are deleted.
        line_count: number of lines in the data file.

    Raises:
        OpsError: a record cannot be read, or the data file has no such line.
    """
    answers, errors = {}, dict.fromkeys(range(line_count), MISSING_REASON)
    for file in (file for pattern in RECORDS for file in sorted(folder.glob(pattern))):
        for record in read_jsonl(file):
            line = pop_line_number(record, line_count, file.name)
            run = record.get("run_info") or {}
            if run.get("status") == COMPLETED and isinstance(run.get("output"), dict):
                answers[line] = run["output"]
            else:
                message = (run.get("error") or {}).get("message")
                errors[line] = str(message or f"the line is {run.get('status')}")
    # The flow of this machine is the one that ran, without the files that the upload adds.
    for name in (SNAPSHOT, OUTPUT_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    return Download(dict(sorted(answers.items())), errors, folder)
