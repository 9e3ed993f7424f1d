"""Batches as `pfazure run` makes them: runs of an uploaded flow, in a Foundry project or an Azure ML
workspace, with their outputs brought back.

The contract is promptflow-azure 1.18.5's: a run names the uploaded flow by its id (`azureml:ID`, the
"remote workspace flow"), its data is uploaded to the workspace's blob storage, the connections are the
workspace's own. A line that fails is that line's matter: the run completes, and a record says why.
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
from ..azure import COMPLETED, ENDED_BADLY, Cloud, Plan, Step, find_resource, foundry_errors
from ..errors import OpsError
from ..files import read_jsonl, write_json
from ..publish import FoundryProject, display_name, require_locked
from ..waiting import wait_until
from .outputs import OUTPUT_FOLDER, Download, line_number_of
from .submission import BATCH_TAG, BatchRequest, BatchSubmission, batch_digest

FOUNDRY_RUN_PREFIX = "foundry-"
WORKERS = "PF_WORKER_COUNT"  # lines at once, where prompt flow's engine runs them
POLL_S = 10.0  # as promptflow's own stream
DOWNLOAD_S = 60  # for each answer of the run history and the data service
MOST_LOST = 5  # looks without an answer, one after another
METADATA = "run_metadata.json"
TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")
LOST = "not among the run's outputs: it was never run"
# Each line's record, some in a file; at the top where an older runtime wrote them.
RECORDS = ("flow_artifacts/*.jsonl", "[0-9]*_[0-9]*.jsonl")


class FoundrySubmission(BatchSubmission):
    """A run that is submitted once for the same flow, data, columns, connections and title."""

    kind, prefix, option = "run", FOUNDRY_RUN_PREFIX, "--on-foundry"

    def __init__(self, cloud: Cloud, request: BatchRequest) -> None:
        super().__init__(cloud, request)
        self.project = FoundryProject(cloud)
        self.digest = batch_digest(self.asked, request.title)

    @property
    def _runs(self) -> Any:
        return self.project.client.runs

    def plan(self) -> Plan:
        """The one step, of a flow that is there.

        Raises:
            OpsError: the flow is not locked or its version not uploaded, or the workspace lacks a
                connection.
        """
        request, where = self.request, self.cloud.config.azure.workspace
        folder = request.flow.folder.resolve()
        state = require_locked(folder.name, folder.parent)
        version = display_name(state)
        uploaded = self.project.find(state)
        if uploaded is None:
            own = "" if folder.parent == paths.FLOWS.resolve() else f" --folder {folder.parent}"
            fix = f"Run `phi3 flow upload {state.name}{own}` first."
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
            connections={node: {"connection": name} for node, name in request.names.items()},
            environment_variables={WORKERS: str(request.in_flight)},
            tags={**self.cloud.tags(), BATCH_TAG: self.asked},
        )
        # The client may print what it uploads.
        with foundry_errors(), contextlib.redirect_stdout(io.StringIO()):
            self._runs.create_or_update(run)

    def follow(self) -> bool:
        """Print the run's log as it grows, until it ends.

        Raises:
            OpsError: it failed as a whole.
        """
        printed, status = 0, ""

        def print_news() -> str:
            nonlocal printed, status
            run, log = self._look()
            if run.status != status:
                status = run.status
                print(f"({status})")
            print(log[printed:], end="", flush=True)
            printed = len(log)
            if status in ENDED_BADLY:
                raise self._failed(run)
            return status

        wait_until(print_news, COMPLETED.__eq__, timeout_s=math.inf, poll_s=POLL_S)
        return True

    def _look(self) -> tuple[Any, str]:
        """The run and its log so far; a look that is lost on the way is repeated."""
        from azure.core.exceptions import AzureError

        for lost in range(1, MOST_LOST + 1):
            try:
                with foundry_errors():
                    return self._runs.get(self.name), self._runs._get_log(self.name) or ""
            except AzureError as error:
                status = getattr(error, "status_code", None) or 500
                if lost == MOST_LOST or (status < 500 and status not in (408, 429)):
                    raise
            time.sleep(POLL_S)
        raise AssertionError

    def _failed(self, run: Any) -> OpsError:
        """Why a run failed as a whole, as far as Azure says."""
        error = (getattr(run, "_error", None) or {}).get("error") or {}
        message = " ".join(str(error.get("message") or "Azure does not say why").split())
        what = f"the run {run.name} is {run.status}: {message}"
        return OpsError(what, f"See {run._portal_url}." if run._portal_url else "")

    def download(self, name: str, place: Path) -> Download:
        run: Any = self.find(name)
        if run.status != COMPLETED:
            raise self._failed(run)
        with foundry_errors():
            asyncio.run(self._artifacts(name, place))
            write_json(place / "metrics.json", self._runs.get_metrics(name))
            log = self._runs._get_log(name) or ""
        (place / "logs.txt").write_text(log, encoding="utf-8")
        return downloaded_outputs(place, len(self.rows))

    async def _artifacts(self, name: str, place: Path) -> None:
        """promptflow's `runs.download` without its client, which sends the user's token to whoever
        answers: it checks no certificate."""
        import httpx
        from promptflow.azure.operations._async_run_downloader import AsyncRunDownloader

        downloader = AsyncRunDownloader._from_run_operations(self._runs, name, place)
        async with httpx.AsyncClient(timeout=DOWNLOAD_S) as client:
            try:
                await downloader._download_artifacts_and_snapshot(client)
            except Exception:
                # It leaves its other tasks alone with a client that is about to be closed.
                others = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.gather(*others, return_exceptions=True)
                raise

    def properties(self, folder: Path) -> dict[str, Any]:
        """The tokens that the lines took, by the names of a local run."""
        known = json.loads((folder / METADATA).read_text(encoding="utf-8")).get("properties") or {}
        found = {name: str(known.get(f"azureml.promptflow.{name}")) for name in TOKENS}
        counted = {name: int(value) for name, value in found.items() if value.isdecimal()}
        return {"system_metrics": counted} if counted else {}


def downloaded_outputs(folder: Path, count: int) -> Download:
    """What promptflow's client downloaded of a run.

    Args:
        folder: the run's; what is written anew of it is removed.
        count: lines of the data file.

    Raises:
        OpsError: a record cannot be read, or is of no line.
    """
    answers, errors = {}, dict.fromkeys(range(count), LOST)
    for file in (file for pattern in RECORDS for file in sorted(folder.glob(pattern))):
        for record in read_jsonl(file):
            line, run = line_number_of(record, count, file.name), record.get("run_info") or {}
            if run.get("status") == COMPLETED and isinstance(run.get("output"), dict):
                answers[line] = run["output"]
            else:
                message = (run.get("error") or {}).get("message")
                errors[line] = str(message or f"the line is {run.get('status')}")
    # The flow here is the one that ran, without what the upload adds to it; the answers are written anew.
    for own in ("snapshot", OUTPUT_FOLDER):
        shutil.rmtree(folder / own, ignore_errors=True)
    return Download(dict(sorted(answers.items())), errors, folder)
