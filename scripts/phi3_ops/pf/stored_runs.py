"""The runs of Prompt flow's local store: find, list, execute and add them.

The rest of the project reads and writes runs through the dataclasses of this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import OpsError, first_line
from .client import pf_client
from .engine import limited_engine
from .expectations import BATCH_ENGINE, COMPLETED, is_supported
from .pace import ConcurrencyLimit

RUNNING, CANCELED = "Running", "Canceled"  # further values of a run's status
_WORKERS = "PF_WORKER_COUNT"  # number of lines that Prompt flow's own engine runs at once

# Node -> input -> name of the connection that replaces the flow's.
Connections = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class StoredRun:
    """A run of the store.

    Attributes:
        name: its name, for `pf run show --name`.
        title: its display name.
        status: for example `COMPLETED`.
        folder: its outputs, inputs, records and a copy of its flow.
        flow: folder or file of its flow, or None.
        data: its data file, or None.
        base: name of the run whose outputs it reads, or None.
        column_mapping: flow input -> `${data.x}`, `${run.outputs.x}` or a constant.
        properties: further properties, by name.
        created_on: the time at which it was created.
    """

    name: str
    title: str
    status: str
    folder: Path
    flow: Path | None
    data: Path | None
    base: str | None
    column_mapping: Mapping[str, str]
    properties: Mapping[str, Any]
    created_on: datetime


@dataclass(frozen=True)
class NewRun:
    """A run to execute; the fields are those of `StoredRun`.

    Attributes:
        connections: node -> input -> connection, which replaces the flow's.
        resume_from: name of the run whose completed lines are copied, or None.
    """

    name: str
    title: str
    flow: Path | None
    data: Path
    base: str | None
    column_mapping: Mapping[str, str]
    connections: Connections | None
    properties: Mapping[str, Any] = field(default_factory=dict)
    resume_from: str | None = None


def find_stored_run(name: str) -> StoredRun | None:
    """Return the run of that name, or None if it does not exist."""
    client = pf_client()
    from promptflow.exceptions import UserErrorException

    try:
        return _stored_run(client.runs.get(name))
    except UserErrorException:
        return None


def list_stored_runs() -> list[StoredRun]:
    """Return every run of the store that is not archived."""
    return [_stored_run(run) for run in pf_client().runs.list(max_results=None)]


def set_run_status(name: str, status: str) -> None:
    """Change the status of a run."""
    pf_client().runs.update(name, status=status)


def execute_run(new: NewRun, limit: ConcurrencyLimit, on_line: Callable[[bool], None]) -> StoredRun:
    """Run a flow over a data file, in this process, with the lines as asynchronous tasks.

    If the installed Prompt flow is untested, its own engine runs the lines: the limit does not shrink
    after a 429, and `on_line` is not called.

    Args:
        new: the run.
        limit: how many lines may be in flight.
        on_line: called when a line has ended; the argument is whether it completed.

    Raises:
        OpsError: the run failed as a whole. Failed lines do not raise.
    """
    client = pf_client()
    from promptflow.entities import Run

    run = Run(
        flow=new.flow,
        data=new.data,
        run=new.base,
        column_mapping=dict(new.column_mapping),
        connections=new.connections,
        name=new.name,
        display_name=new.title,
        properties=dict(new.properties),
        **({"resume_from": new.resume_from} if new.resume_from else {}),
    )
    engine: AbstractContextManager[None] = nullcontext()
    if is_supported(BATCH_ENGINE):
        engine = limited_engine(limit, on_line)
    with _worker_count(limit.maximum), engine:
        try:
            # In one process, a run starts in 3 s instead of 20.
            return _stored_run(client.runs.create_or_update(run, batch_use_async=True))
        except Exception as error:  # Prompt flow has no base class for the errors of a run
            raise OpsError(f"the batch {new.name} failed: {first_line(error)}") from error


def add_run(
    name: str,
    folder: Path,
    *,
    title: str,
    data: Path,
    flow: Path,
    column_mapping: Mapping[str, str],
    properties: Mapping[str, Any],
) -> None:
    """Add a run that was executed elsewhere to the store. An existing run of that name stays as it is.

    Args:
        name: the name of the run.
        folder: the folder of the run, as Prompt flow writes it.
        title: its display name.
        data: its data file.
        flow: the folder of its flow.
        column_mapping: flow input -> `${data.x}` or a constant.
        properties: further properties, by name.

    Raises:
        OpsError: the store cannot be written.
    """
    if find_stored_run(name) is not None:
        return
    from promptflow.entities import Run

    now = datetime.now(timezone.utc)
    run = Run(
        name=name,
        source=folder.resolve(),
        run_source="existing_run",
        data=str(data.resolve()),
        display_name=title,
        status=COMPLETED,
        created_on=now,
        start_time=now,
        end_time=now,
        properties={
            "column_mapping": dict(column_mapping),
            "flow_path": flow.resolve().as_posix(),
            **properties,
        },
    )
    try:
        pf_client().runs.create_or_update(run)
    except Exception as error:  # Prompt flow has no base class for the errors of its store
        what = f"cannot add the run {name} to Prompt flow's store: {first_line(error)}"
        raise OpsError(what) from error


def _stored_run(run: Any) -> StoredRun:
    return StoredRun(
        name=run.name,
        title=str(run.display_name or run.name),
        status=run.status,
        folder=Path(getattr(run, "_output_path", "")),  # runs of a remote flow have none
        flow=Path(run.flow) if run.flow else None,
        data=Path(run.data) if run.data else None,
        base=str(getattr(run.run, "name", run.run) or "") or None,
        column_mapping=run.column_mapping or {},
        properties=run.properties or {},
        created_on=run._created_on,
    )


@contextmanager
def _worker_count(count: int) -> Iterator[None]:
    before = os.environ.get(_WORKERS)
    os.environ[_WORKERS] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WORKERS]
        else:
            os.environ[_WORKERS] = before
