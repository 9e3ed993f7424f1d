"""Resume a run: run the lines that are missing or failed, as a new run that has all lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import OpsError
from ..files import read_jsonl
from ..hashing import file_sha256
from ..pf import COMPLETED, PHI3, RUNNING, NewRun, StoredRun, set_run_status
from .batch import (
    DEFAULT_IN_FLIGHT,
    Batch,
    ProgressCallback,
    execute_batch,
    lines_to_run,
    load_batch,
    new_run_name,
    require_data_file,
)
from .lookup import require_run
from .process import describe_this_process, process_is_running
from .properties import RunProperties
from .store import complete_run_folder


def resume_run(
    name: str,
    *,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
    engine: str = PHI3,
) -> Batch:
    """Run only the lines of a run that are missing or failed, as a new run that has all lines.

    If no line is missing or failed, nothing runs, and the old run is returned.

    Args:
        name: name or display name of a run of `run_flow` that was interrupted or killed, or that has
            failed lines.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended; first for the lines that are copied.
        engine: as in `run_flow`.

    Raises:
        OpsError: the run does not exist, is still running, its data file or flow has changed, or it
            stopped because the same lasting error came again and again.
        BatchInterrupted: a Ctrl-C stopped the run.
    """
    old = require_run(name)
    data = require_data_file(old)
    if old.status == COMPLETED and not lines_to_run(old, len(read_jsonl(data))):
        return load_batch(old.name)
    recorded = RunProperties.from_properties(old.properties)
    connections = recorded.connections or None
    current = RunProperties.of_flow(old.flow, connections) if old.flow else RunProperties()
    _refuse_changes(old, data, recorded, current)
    _make_completed(old, recorded)
    properties = replace(
        current,
        connections=recorded.connections,
        data_sha256=recorded.data_sha256,
        process=describe_this_process(),
    )
    new = NewRun(
        name=new_run_name(old.title),
        title=old.title,
        flow=old.flow,
        data=data,
        base=old.base,
        column_mapping=old.column_mapping,
        connections=connections,
        properties=properties.to_properties(),
        resume_from=old.name,
        engine=engine,
        variant=_variant(old),
    )
    return execute_batch(new, in_flight, on_progress)


def _variant(run: StoredRun) -> str | None:
    """Return the variant that a run used, as `node.variant`, or None."""
    variant = str(run.properties.get("node_variant") or "")
    return variant.removeprefix("${").removesuffix("}") or None


def _refuse_changes(
    old: StoredRun, data: Path, recorded: RunProperties, current: RunProperties
) -> None:
    """Raise OpsError if the data file or the flow is not the one that the run used."""
    if recorded.data_sha256 not in (None, file_sha256(data)):
        fix = "Start a new run, or restore the old file."
        raise OpsError(f"{data} has changed since {old.name} read it", fix)
    if recorded.flow_sha256 not in (None, current.flow_sha256):
        fix = "Start a new run, or restore the old flow: a run has one flow."
        raise OpsError(f"{old.flow} has changed since {old.name} ran it", fix)


def _make_completed(run: StoredRun, recorded: RunProperties) -> None:
    """Give a run that did not end the status Completed: Prompt flow resumes no other runs."""
    if run.status == COMPLETED:
        return
    if run.status == RUNNING and process_is_running(recorded.process or ""):
        raise OpsError(f"{run.name} is still running", "Wait for it, or stop it with Ctrl-C.")
    complete_run_folder(run.folder)
    set_run_status(run.name, COMPLETED)
