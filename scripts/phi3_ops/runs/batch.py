"""Batches: a flow over a data file, scores bound to it, and every line counted."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import Mean, mean_of

from .. import paths
from ..errors import OpsError, first_line
from ..files import read_jsonl
from ..hashing import file_sha256
from ..pf import (
    LINE_NUMBER,
    CallListener,
    ConcurrencyLimit,
    engine_is_supported,
    limited_engine,
    listening,
    pf_client,
)
from .properties import FLOW_HASH_PROPERTY, run_properties

DEFAULT_IN_FLIGHT = 16
COMPLETED = "Completed"
# What a run of ours remembers beside what promptflow does, and `run_properties`; read again by `resume`.
CONNECTIONS, DATA_HASH, PROCESS = "phi3.connections", "phi3.data_sha256", "phi3.process"

Connections = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Batch:
    """A finished run in prompt flow's store.

    Attributes:
        name: for `pf run show-details --name`.
        answers: line number (from 0) -> the line's outputs; a failed line is not there.
        lines: lines of the data file.
        reason: why the first of the failed lines failed, or None.
        interrupted: Ctrl-C ended it before every line was run.
    """

    name: str
    answers: Mapping[int, Mapping[str, Any]]
    lines: int
    reason: str | None = None
    interrupted: bool = False

    @property
    def failed(self) -> int:
        """Lines without an answer, whatever became of them."""
        return self.lines - len(self.answers)


@dataclass
class BatchProgress:
    """How far a batch is; `tokens` are those of the answers so far, questions included."""

    lines: int
    done: int = 0
    failed: int = 0
    tokens: int = 0

    def add(self, line: Any) -> None:
        """Count a line that has ended, from promptflow's `LineResult`."""
        self.done += 1
        self.failed += line.run_info.status.value != COMPLETED


ProgressCallback = Callable[[BatchProgress, ConcurrencyLimit], None]


def run_flow(
    flow: Path,
    data: Path,
    columns: Mapping[str, str],
    *,
    title: str,
    base: Batch | str | None = None,
    connections: Connections | None = None,
    in_flight: int = DEFAULT_IN_FLIGHT,
    watch: ProgressCallback | None = None,
) -> Batch:
    """Run a flow over a JSONL file, or over a run's outputs, with promptflow's own engine.

    Ctrl-C lets the lines in flight end, keeps what was answered and starts no more; a second one ends
    the process. An endpoint that answers 429 gets fewer lines at once.

    Args:
        flow: the flow's folder.
        data: the data file, one line a row.
        columns: flow input -> `${data.x}` or `${run.outputs.x}`.
        title: what the run is called in lists; its name gets the time and a random end.
        base: the run whose outputs `columns` refers to.
        connections: node -> input -> connection, in place of what the flow says.
        in_flight: lines at once, at most.
        watch: called whenever a line has ended.

    Raises:
        OpsError: the run failed as a whole. Lines that fail do not raise: see `Batch.failed`.
    """
    properties = {
        CONNECTIONS: json.dumps(connections or {}),
        DATA_HASH: file_sha256(data),
        PROCESS: _this_process(),
        **run_properties(flow, connections),
    }
    run = {
        "flow": flow,
        "data": data,
        "run": base.name if isinstance(base, Batch) else base,
        "column_mapping": dict(columns),
        "connections": connections,
        "name": new_run_name(title),
        "display_name": title,
        "properties": properties,
    }
    return _submit(run, data, in_flight, watch)


def resume_run(
    name: str, *, in_flight: int = DEFAULT_IN_FLIGHT, watch: ProgressCallback | None = None
) -> Batch:
    """Run only the lines of a run that are missing or failed, as a new run that has them all.

    Args:
        name: a run of `run_flow` that was interrupted, killed, or has failed lines.
        in_flight: lines at once, at most.
        watch: called whenever a line has ended; the lines that are taken over come first.

    Raises:
        OpsError: there is no such run, it is running, or its data file or its flow has changed since.
    """
    client = pf_client()
    old = find_run(name)
    data = Path(old.data) if old.data else None
    if data is None or not data.is_file():
        raise OpsError(f"the data file of {name} is gone: {data}", "Put it back where it was.")
    if old.properties.get(DATA_HASH, file_sha256(data)) != file_sha256(data):
        fix = "Start a new run, or put the old file back."
        raise OpsError(f"{data} has changed since {name} read it", fix)
    connections = json.loads(old.properties.get(CONNECTIONS, "{}")) or None
    known = run_properties(Path(old.flow), connections) if old.flow else {}
    content = FLOW_HASH_PROPERTY
    if old.properties.get(content, known.get(content)) != known.get(content):
        fix = "Start a new run, or put the old flow back: a run has one flow."
        raise OpsError(f"{old.flow} has changed since {name} ran it", fix)
    if old.status != COMPLETED:
        _make_resumable(client, old)
    title = str(old.display_name or name)
    own = (CONNECTIONS, DATA_HASH)
    run = {
        "flow": old.flow,
        "data": data,
        "run": old.run,
        "column_mapping": old.column_mapping,
        "connections": connections,
        "name": new_run_name(title),
        "display_name": title,
        "properties": {
            **{key: value for key, value in old.properties.items() if key in own},
            PROCESS: _this_process(),
            **known,
        },
        "resume_from": name,
    }
    return _submit(run, data, in_flight, watch)


def find_run(name: str) -> Any:
    """A run of prompt flow's local store.

    Raises:
        OpsError: there is none of that name.
    """
    client = pf_client()
    from promptflow.exceptions import UserErrorException

    try:
        return client.runs.get(name)
    except UserErrorException as error:
        raise OpsError(f"there is no run {name!r}", "See `pf run list`.") from error


def load_batch(name: str) -> Batch:
    """A run of prompt flow's store, as it is there.

    Raises:
        OpsError: there is none of that name, or it has no data file.
    """
    run = find_run(name)
    if not run.data or not Path(run.data).is_file():
        raise OpsError(f"the data file of {name} is gone: {run.data}", "Put it back where it was.")
    folder = Path(run._output_path)
    return Batch(name, _outputs(folder), len(read_jsonl(Path(run.data))), _first_error(folder))


def new_run_name(title: str) -> str:
    """A run's name: the title, the time and a random end."""
    return f"{title}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def _submit(
    run: dict[str, Any], data: Path, in_flight: int, watch: ProgressCallback | None
) -> Batch:
    lines = len(read_jsonl(data))
    client = pf_client()
    from promptflow.entities import Run

    name, pace, count = run["name"], ConcurrencyLimit(in_flight), BatchProgress(lines)

    def on_line(line: Any) -> None:
        count.add(line)
        if watch:
            watch(count, pace)

    def on_tokens(number: int) -> None:
        count.tokens += number

    paced = limited_engine(pace, on_line) if engine_is_supported() else nullcontext()
    calls_heard = listening(CallListener(pace, on_tokens))
    with _workers(in_flight), _stopped_by_interrupt(pace, name), calls_heard, paced:
        try:
            # One process with the lines as tasks: 3 s of start instead of 20.
            done = client.runs.create_or_update(Run(**run), batch_use_async=True)
        except Exception as error:  # promptflow has no base class for what a run can raise
            raise OpsError(f"the batch {name} failed: {first_line(error)}") from error
    if done.status != COMPLETED:
        raise OpsError(
            f"the batch {name} ended as {done.status}", f"See `pf run show --name {name}`."
        )
    folder = Path(done._output_path)
    return Batch(name, _outputs(folder), lines, _first_error(folder), pace.stopped)


@contextmanager
def _workers(count: int) -> Iterator[None]:
    """The stock engine reads the number of lines in flight from the environment."""
    before = os.environ.get("PF_WORKER_COUNT")
    os.environ["PF_WORKER_COUNT"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PF_WORKER_COUNT"]
        else:
            os.environ["PF_WORKER_COUNT"] = before


@contextmanager
def _stopped_by_interrupt(pace: ConcurrencyLimit, name: str) -> Iterator[None]:
    """The first Ctrl-C stops the pace, the second ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        if pace.stopped:
            pf_client().runs.update(name, status="Canceled")
            os._exit(130)  # the threads of the lines in flight would hold a plain exit up
        pace.stop()

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_resumable(client: Any, run: Any) -> None:
    """Have promptflow accept a run that did not end as one to go on from.

    It copies from completed runs only, and reads three files that a killed process has not written.
    """
    if run.status == "Running" and _runs(run.properties.get(PROCESS, "")):
        raise OpsError(f"{run.name} is still running", "Wait for it, or stop it with Ctrl-C.")
    folder = Path(run._output_path)
    for name in ("inputs.jsonl", "outputs.jsonl", "flow_outputs/output.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for record in folder.glob("*_artifacts/**/*.jsonl"):
        try:
            json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            record.unlink()  # half a record, of a line that is run again
    client.runs.update(run.name, status=COMPLETED)


def _this_process() -> str:
    import psutil

    return f"{os.getpid()} {psutil.Process().create_time():.0f}"


def _runs(process: str) -> bool:
    """Whether the process that `_this_process` described is still there, and is the same one."""
    import psutil

    number, _, started = process.partition(" ")
    try:
        return f"{psutil.Process(int(number)).create_time():.0f}" == started
    except (ValueError, psutil.Error):
        return False


def _outputs(folder: Path) -> dict[int, dict[str, Any]]:
    file = folder / "flow_outputs" / "output.jsonl"
    if not file.is_file():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return {row.pop(LINE_NUMBER): row for row in rows}


def _first_error(folder: Path) -> str | None:
    try:
        error = json.loads((folder / "error.json").read_text(encoding="utf-8"))
        return str(error["additionalInfo"][0]["info"]["errors"][0]["error"]["message"])
    except (OSError, ValueError, LookupError):
        return None


def ask_and_score(data: Path, *, title: str, connection: str) -> tuple[Batch, Batch]:
    """Ask flows/qa every question of a data file, then score the answers with flows/eval.

    Args:
        data: JSONL with `question` and `ground_truth`.
        title: of the two runs.
        connection: of the endpoint to ask.

    Returns:
        The run of the answers and the run of the scores.

    Raises:
        OpsError: no line was answered, so that there is nothing to score.
    """
    asked = run_flow(
        paths.FLOWS / "qa",
        data,
        {"input_data": "${data.question}"},
        title=title,
        connections={"answer": {"connection": connection}},
    )
    if not asked.answers:
        raise OpsError(f"all {asked.lines} lines of {asked.name} failed: {asked.reason}")
    scored = run_flow(
        paths.FLOWS / "eval",
        data,
        {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"},
        title=f"{title}-eval",
        base=asked,
    )
    return asked, scored


def mean_by_kind(
    rows: Sequence[Mapping[str, Any]], scored: Batch, metric: str = "exact_match"
) -> dict[str, Mean]:
    """A metric's mean for each `kind` of row. A line without a score failed, and counts 0.

    Args:
        rows: the data file's rows, in order.
        scored: the run of flows/eval over it.
        metric: one of that flow's outputs.
    """
    kinds: dict[str, list[float]] = {}
    for line, row in enumerate(rows):
        value = scored.answers.get(line, {}).get(metric)
        kinds.setdefault(row["kind"], []).append(value if isinstance(value, (int, float)) else 0.0)
    return {kind: mean_of(values) for kind, values in kinds.items()}
