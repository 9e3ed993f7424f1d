"""Stored runs: find, list, begin, end, delete, add them, or execute them with Prompt flow's engine.

Where Prompt flow is installed, runs are in its store, so that `pf run` shows them. Elsewhere they are in
the package's own store. The rest of the project reads and writes runs through these functions.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import OpsError, first_line
from .client import pf_client
from .engine import limited_engine
from .expectations import BATCH_ENGINE, COMPLETED, is_supported
from .own_runs import (
    begin_own_run,
    delete_own_run,
    find_own_run,
    forget_own_run,
    list_own_runs,
    update_own_run,
)
from .pace import ConcurrencyLimit
from .run_rows import (
    FLOW_PATH,
    MAPPING,
    end_row,
    find_row,
    insert_row,
    list_rows,
    runs_folder,
    update_status,
)
from .run_types import NewRun, StoredRun
from .store_database import is_installed, open_database

_WORKERS = "PF_WORKER_COUNT"  # number of lines that Prompt flow's own engine runs at once
_TABLE = "run_info"


@contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """Open Prompt flow's database inside the block; None if Prompt flow's client must be used."""
    try:
        with open_database(_TABLE) as database:
            yield database
    except sqlite3.Error as error:
        raise OpsError(f"Prompt flow's store cannot be used: {first_line(error)}") from error


def find_stored_run(name: str) -> StoredRun | None:
    """Return the run of that name, or None if it does not exist.

    Raises:
        OpsError: a store cannot be read.
    """
    return _find_in_promptflow(name) or find_own_run(name)


def _find_in_promptflow(name: str) -> StoredRun | None:
    if not is_installed():
        return None
    with _database() as database:
        if database is not None:
            return find_row(database, name)
    client = pf_client()
    from promptflow.exceptions import UserErrorException

    try:
        return _stored_run(client.runs.get(name))
    except UserErrorException:
        return None


def list_stored_runs() -> list[StoredRun]:
    """Return every run that is not archived, the newest first.

    Raises:
        OpsError: a store cannot be read.
    """
    if not is_installed():
        return list_own_runs()
    with _database() as database:
        if database is not None:
            return [*list_rows(database), *list_own_runs()]
    runs = [_stored_run(run) for run in pf_client().runs.list(max_results=None)]
    return [*runs, *list_own_runs()]


def set_run_status(name: str, status: str) -> None:
    """Change the status of a run."""
    if find_own_run(name) is not None:
        update_own_run(name, status)
        return
    with _database() as database:
        if database is not None:
            update_status(database, name, status)
            return
    pf_client().runs.update(name, status=status)


def begin_run(new: NewRun) -> Path:
    """Add a run that starts now, and return its folder.

    Raises:
        OpsError: a run of that name exists, or the store cannot be written.
    """
    if not is_installed():
        return begin_own_run(new)
    with open_database(_TABLE) as database:
        has_table = database is not None
    if not has_table:
        _create_database()
    folder = runs_folder(new.flow or Path()) / new.name
    try:
        with open_database(_TABLE) as database:
            if database is None:  # an untested version of Prompt flow
                return begin_own_run(new)
            insert_row(database, new, folder)
            folder.mkdir(parents=True)
    except sqlite3.IntegrityError as error:
        raise OpsError(f"the run {new.name} exists already", "Choose another name.") from error
    except (sqlite3.Error, OSError) as error:
        what = f"cannot add the run {new.name} to Prompt flow's store: {first_line(error)}"
        raise OpsError(what) from error
    return folder


def _create_database() -> None:
    """Let Prompt flow create its database, as at its first use."""
    pf_client().runs.list(max_results=1)


def end_run(name: str, status: str, system_metrics: Mapping[str, Any]) -> None:
    """Note that a run of `begin_run` has ended now.

    Args:
        name: its name.
        status: `COMPLETED`, `FAILED` or `CANCELED`.
        system_metrics: counts of lines and tokens, and the duration in seconds.
    """
    if find_own_run(name) is not None:
        update_own_run(name, status, system_metrics)
        run = find_own_run(name)
        if run is not None and is_installed() and status == COMPLETED:
            _move_to_promptflow(run)
        return
    with _database() as database:
        if database is not None:
            end_row(database, name, status, system_metrics)


def _move_to_promptflow(run: StoredRun) -> None:
    """Add a run to the store of an untested Prompt flow with its client; if that fails, the run stays."""
    with suppress(OpsError):
        _add_with_client(run)
        forget_own_run(run.name)


def delete_stored_run(name: str) -> bool:
    """Delete a run with its folder, and return whether it existed.

    Raises:
        OpsError: the run cannot be deleted.
    """
    if delete_own_run(name):
        return True
    if _find_in_promptflow(name) is None:
        return False
    try:
        pf_client().runs.delete(name)
    except Exception as error:  # Prompt flow has no base class for the errors of its store
        raise OpsError(f"cannot delete the run {name}: {first_line(error)}") from error
    return True


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
        variant=f"${{{new.variant}}}" if new.variant else None,
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
    if not is_installed():
        new = NewRun(name, title, flow, data, None, column_mapping, None, properties)
        begin_own_run(new, folder.resolve())
        update_own_run(name, COMPLETED, {})
        return
    now = datetime.now(timezone.utc)
    fields = {FLOW_PATH: flow.resolve().as_posix(), MAPPING: dict(column_mapping), **properties}
    mapping = dict(column_mapping)
    run = StoredRun(name, title, COMPLETED, folder, flow, data, None, mapping, fields, now)
    _add_with_client(run)


def _add_with_client(run: StoredRun) -> None:
    """Add a run that has completed to Prompt flow's store.

    Raises:
        OpsError: the store cannot be written.
    """
    client = pf_client()
    from promptflow.entities import Run

    entity = Run(
        name=run.name,
        source=run.folder.resolve(),
        run_source="existing_run",
        data=str(run.data.resolve()) if run.data else None,
        display_name=run.title,
        status=run.status,
        created_on=run.created_on,
        start_time=run.created_on,
        end_time=datetime.now(timezone.utc),
        properties=dict(run.properties),
    )
    try:
        client.runs.create_or_update(entity)
    except Exception as error:  # Prompt flow has no base class for the errors of its store
        what = f"cannot add the run {run.name} to Prompt flow's store: {first_line(error)}"
        raise OpsError(what) from error


def _stored_run(run: Any) -> StoredRun:
    return StoredRun(
        name=run.name,
        title=str(run.display_name or run.name),
        status=run.status,
        folder=Path(getattr(run, "_output_path", "")),  # runs of a remote flow have none
        flow=Path(run.flow) if run.flow else None,
        data=Path(run.data).resolve() if run.data else None,
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
