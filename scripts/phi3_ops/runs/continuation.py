"""Go on with the run of a title instead of starting a new one, so that no answered line runs again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..pf import COMPLETED, Connections, StoredRun, list_stored_runs
from .batch import (
    DEFAULT_IN_FLIGHT,
    Batch,
    BatchStopped,
    ProgressCallback,
    load_batch,
    run_flow,
)
from .records import LineUsage, read_line_usage
from .repeated_failures import is_lasting
from .resume import resume_run


def furthest_run(title: str) -> StoredRun | None:
    """Return the run of that display name with the most answered lines, or None.

    A run that was resumed and then killed can have fewer lines than the run that it resumed.
    """
    runs = [
        run
        for run in list_stored_runs()
        if run.title == title and run.data is not None and run.data.is_file()
    ]
    return max(
        runs,
        key=lambda run: (len(read_line_usage(run.folder)), run.status == COMPLETED, run.created_on),
        default=None,
    )


def continue_flow(
    flow: Path,
    data: Path,
    columns: Mapping[str, str],
    *,
    title: str,
    base: Batch | None = None,
    connections: Connections | None = None,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
    retry_failed: bool = False,
) -> Batch:
    """Run a flow over a JSONL file, or go on with the run of that title.

    A run in which every line was answered or failed is returned as it is, unless no line was answered
    because the endpoint refused the key or could not be reached.

    Args:
        flow: the folder of the flow, as in `run_flow`; likewise the other arguments and the exceptions.
        data: the data file.
        columns: flow input -> its source.
        title: display name of the run. It must identify everything that the answers depend on: the
            content of the flow and of the data, the columns and the connection.
        base: the run whose outputs `columns` refers to.
        connections: node -> input -> connection that replaces the flow's.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended.
        retry_failed: whether to run the failed lines of a complete run again.

    Raises:
        BatchStopped: no line was answered, for such a reason.
    """
    old = furthest_run(title)
    if old is None:
        batch = run_flow(
            flow,
            data,
            columns,
            title=title,
            base=base,
            connections=connections,
            in_flight=in_flight,
            on_progress=on_progress,
        )
    elif old.status == COMPLETED and not (retry_failed or _lines_to_repeat(old)):
        return load_batch(old.name)
    else:
        batch = resume_run(old.name, in_flight=in_flight, on_progress=on_progress)
    if _is_lost(batch):
        raise BatchStopped(f"no line was answered: {batch.reason}", batch)
    return batch


def _is_lost(batch: Batch) -> bool:
    """Return whether no line was answered, for a reason that the user can remove."""
    return not batch.answers and is_lasting(batch.reason)


def _lines_to_repeat(run: StoredRun) -> int:
    """Return the number of lines of a complete run that run again without `retry_failed`."""
    batch = load_batch(run.name)
    return batch.not_asked + (batch.failed if _is_lost(batch) else 0)


def lines_left(run: StoredRun | None, lines: int, *, retry_failed: bool = False) -> int:
    """Return the number of lines that `continue_flow` would run.

    Args:
        run: the result of `furthest_run`.
        lines: number of lines in the data.
        retry_failed: as in `continue_flow`.
    """
    if run is None:
        return lines
    if run.status == COMPLETED and not retry_failed:
        return _lines_to_repeat(run)
    return lines - len(read_line_usage(run.folder))


def usage_of_run(run: StoredRun) -> dict[int, LineUsage]:
    """Return what the answered lines of a run took, by their numbers."""
    return read_line_usage(run.folder)
