"""Batches: run a flow over every line of a data file, and count every line, also the failed ones."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi3_tools.client import observe_calls

from ..errors import OpsError
from ..files import read_jsonl
from ..flows import FlowDefinition
from ..hashing import file_sha256
from ..names import LONGEST, safe_name
from ..pf import (
    CANCELED,
    COMPLETED,
    PHI3,
    PROMPTFLOW,
    BatchCallObserver,
    ConcurrencyLimit,
    Connections,
    NewRun,
    StoredRun,
    execute_run,
    find_stored_run,
    set_run_status,
)
from .app_engine import AppEngine
from .engine_run import run_lines
from .lookup import require_run
from .process import describe_this_process
from .properties import RunProperties
from .repeated_failures import MAX_FAILURES, RepeatedFailures
from .store import RowsByLine, read_answers, read_errors

DEFAULT_IN_FLIGHT = 16
STOPPING = b"\nThe run waits for the lines in flight. Press Ctrl-C again to end it now.\n"
KILLED = 130  # exit code after a second Ctrl-C


@dataclass(frozen=True)
class Batch:
    """A finished run in Prompt flow's store.

    Attributes:
        name: the run's name, for `pf run show-details --name`.
        answers: line number (from 0) -> the line's outputs; failed lines are missing.
        lines: number of lines in the data file.
        reason: why the first of the failed lines failed, or None.
        not_asked: number of lines that have not run, because the run was stopped before them.
    """

    name: str
    answers: RowsByLine
    lines: int
    reason: str | None = None
    not_asked: int = 0

    @property
    def failed(self) -> int:
        """Number of lines that have run and have no answer, for whatever reason."""
        return self.lines - len(self.answers) - self.not_asked

    @property
    def counts(self) -> str:
        """The numbers of answered, failed and not asked lines in words."""
        counts = {"answered": len(self.answers), "failed": self.failed, "not asked": self.not_asked}
        return ", ".join(f"{n:,} {word}" for word, n in counts.items() if n or word == "answered")

    @property
    def progress(self) -> str:
        """The `counts`, and the command that runs the missing and the failed lines."""
        if not (self.failed or self.not_asked):
            return self.counts
        return f"{self.counts}; go on with: phi3 run --resume {self.name}"


class BatchInterrupted(KeyboardInterrupt):
    """A Ctrl-C stopped a batch after its lines in flight.

    Args:
        batch: the batch with the answers so far.
    """

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"interrupted: {batch.progress}")
        self.batch = batch


class BatchStopped(OpsError):
    """A batch stopped, because every call would fail until the user changes something.

    Args:
        what: the cause.
        batch: the batch with the answers so far.
    """

    def __init__(self, what: str, batch: Batch) -> None:
        super().__init__(what, batch.progress)
        self.batch = batch


@dataclass
class BatchProgress:
    """How far a batch is.

    Attributes:
        lines: number of lines in the data file.
        done: number of lines that have ended.
        failed: number of lines that have failed.
        tokens: number of tokens of the answers so far, prompts included.
        in_flight: number of lines that are running.
    """

    lines: int
    done: int = 0
    failed: int = 0
    tokens: int = 0
    in_flight: int = 0

    def add_line(self, completed: bool) -> None:
        """Count a line that has ended."""
        self.done += 1
        self.failed += not completed

    def add_tokens(self, count: int) -> None:
        """Count the tokens of an answer."""
        self.tokens += count


ProgressCallback = Callable[[BatchProgress], None]


def run_flow(
    flow: Path,
    data: Path,
    columns: Mapping[str, str],
    *,
    title: str,
    base: Batch | None = None,
    connections: Connections | None = None,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
    engine: str = PHI3,
    variant: str | None = None,
) -> Batch:
    """Run a flow over a JSONL file, and optionally over a run's outputs.

    A Ctrl-C lets the lines in flight end, keeps all answers and starts no further line. A second one
    ends the process. While the endpoint answers 429, fewer lines run at once.

    Args:
        flow: the folder of the flow.
        data: the data file, one row per line.
        columns: flow input -> `${data.x}`, `${run.outputs.x}` or a constant.
        title: display name of the run; the run's name is the title, the time and a random suffix.
        base: the run whose outputs `columns` refers to.
        connections: node -> input -> connection that replaces the flow's.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended.
        engine: `PHI3`, or `PROMPTFLOW` for Prompt flow's own engine.
        variant: `node.variant` that replaces the node's default one, or None.

    Raises:
        OpsError: the run failed as a whole, or it stopped because the same lasting error came again and
            again. Other failed lines do not raise: see `Batch.failed`.
        BatchInterrupted: a Ctrl-C stopped the run.
    """
    properties = replace(
        RunProperties.of_flow(flow, connections),
        connections=connections or {},
        data_sha256=file_sha256(data),
        process=describe_this_process(),
    )
    new = NewRun(
        name=new_run_name(title),
        title=title,
        flow=flow,
        data=data,
        base=base.name if base else None,
        column_mapping=columns,
        connections=connections,
        properties=properties.to_properties(),
        engine=engine,
        variant=variant,
    )
    return execute_batch(new, in_flight, on_progress)


def run_app(
    app: str,
    data: Path,
    mapping: Mapping[str, str],
    *,
    title: str,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
) -> Batch:
    """Run exported code, or a workflow of Agent Framework, over a JSONL file.

    Args:
        app: folder of `phi3 flow export`, or `MODULE:FUNCTION`.
        data: the data file, one row per line.
        mapping: input -> `${data.x}` or a constant; other inputs are the columns of their names.
        title: as in `run_flow`; likewise the other arguments and the exceptions.
    """
    inputs = AppEngine(app).inputs
    columns = [name for name in all_keys(read_jsonl(data)) if inputs is None or name in inputs]
    properties = RunProperties(data_sha256=file_sha256(data), process=describe_this_process())
    new = NewRun(
        name=new_run_name(title),
        title=title,
        # Prompt flow's store requires the folder of a flow.
        flow=Path(app) if Path(app).is_dir() else Path.cwd(),
        data=data,
        base=None,
        column_mapping={**{name: f"${{data.{name}}}" for name in columns}, **mapping},
        connections=None,
        properties=properties.to_properties(),
        app=str(Path(app).resolve()) if Path(app).is_dir() else app,
    )
    return execute_batch(new, in_flight, on_progress)


def execute_batch(new: NewRun, in_flight: int, on_progress: ProgressCallback | None) -> Batch:
    """Execute a run, and return it with its answers.

    Args:
        new: the run.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended.

    Raises:
        OpsError: the run failed as a whole, or it stopped because of `RepeatedFailures`.
        BatchInterrupted: a Ctrl-C stopped the run.
    """
    limit = ConcurrencyLimit(in_flight)
    progress = BatchProgress(len(read_jsonl(new.data)))
    repeated = RepeatedFailures(limit)

    def on_line(completed: bool) -> None:
        repeated.on_line(completed)
        progress.add_line(completed)
        progress.in_flight = limit.in_flight
        if on_progress:
            on_progress(progress)

    calls = observe_calls(BatchCallObserver(limit, progress.add_tokens))
    with _interruptible(limit, new.name), calls, observe_calls(repeated):
        execute = execute_run if new.engine == PROMPTFLOW else run_lines
        run = execute(new, limit, on_line)
    if run.status != COMPLETED:
        fix = f"See `phi3 runs --show {new.name}`."
        raise OpsError(f"the batch {new.name} ended with the status {run.status}", fix)
    batch = _batch(run, progress.lines)
    if not limit.stopped:  # every line has run: a line without a result has failed
        batch = replace(batch, not_asked=0)
    if repeated.error is not None and batch.not_asked:
        what = f"stopped after {MAX_FAILURES} equal failures: {repeated.error}"
        raise BatchStopped(what, batch)
    if limit.stopped and repeated.error is None:
        raise BatchInterrupted(batch)
    return batch


def require_data_file(run: StoredRun) -> Path:
    """Return the data file of a run.

    Raises:
        OpsError: the file does not exist any more, or the run has no data file.
    """
    if run.data is None:
        raise OpsError(f"the run {run.name} has no data file", "Choose a run over a data file.")
    if not run.data.is_file():
        what = f"the data file of the run {run.name} does not exist any more: {run.data}"
        raise OpsError(what, "Restore it.")
    return run.data


def load_batch(name: str) -> Batch:
    """Return a stored run in its present state.

    Args:
        name: name of the run, or its display name, which stands for the newest run.

    Raises:
        OpsError: the run or its data file does not exist.
    """
    run = require_run(name)
    return _batch(run, len(read_jsonl(require_data_file(run))))


def lines_to_run(run: StoredRun, lines: int) -> set[int]:
    """Return the lines without an answer, except those that the base run has not answered.

    Args:
        run: the run.
        lines: number of lines in its data file.
    """
    base = find_stored_run(run.base) if run.base else None
    expected = set(read_answers(base.folder)) if base else set(range(lines))
    return expected - read_answers(run.folder).keys()


def choose_columns(
    flow: FlowDefinition,
    data: Path,
    mapping: Mapping[str, str],
    base: Batch | None = None,
) -> dict[str, str]:
    """Return the source of each input of a flow, see `FlowDefinition.columns`.

    Args:
        flow: the flow.
        data: the data file.
        mapping: the sources that the user has set.
        base: the run whose outputs the flow also reads, or None.

    Raises:
        OpsError: the data file is empty, an input has no source, or the mapping names an input or a
            column that does not exist.
    """
    rows = read_jsonl(data)
    if not rows:
        raise OpsError(f"{data} is empty", "Give a file with one JSON object per line.")
    outputs = all_keys(base.answers.values()) if base else ()
    return flow.columns(mapping, all_keys(rows), outputs)


def all_keys(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """Return every key of some rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def new_run_name(title: str) -> str:
    """Return a name for a run: the title as a valid name, the time and a random suffix."""
    suffix = f"-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    return f"{safe_name(title)[: LONGEST - len(suffix)]}{suffix}"


def _batch(run: StoredRun, lines: int) -> Batch:
    answers, errors = read_answers(run.folder), read_errors(run.folder)
    not_asked = len(lines_to_run(run, lines) - errors.keys())
    return Batch(run.name, answers, lines, next(iter(errors.values()), None), not_asked)


@contextmanager
def _interruptible(limit: ConcurrencyLimit, name: str) -> Iterator[None]:
    """Make the first Ctrl-C stop a batch, and the second one end the process immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        if limit.stopped:
            set_run_status(name, CANCELED)
            os._exit(KILLED)  # a normal exit would wait for the threads of the lines in flight
        limit.stop()
        with suppress(OSError):
            os.write(2, STOPPING)  # `print` can fail if the signal comes while something is printed

    handlers = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
