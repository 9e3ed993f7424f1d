"""Execute a batch with this project's engine. The run's folder has the files that Prompt flow writes."""

from __future__ import annotations

import contextvars
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_tools import Phi3Error, Reply
from phi3_tools.client import CallObserver, observe_calls
from phi3_tools.flow import (
    AggregationResult,
    Engine,
    FlowError,
    LineError,
    LineResult,
    load_flow,
    override_inputs,
    restore_line,
)

from ..errors import OpsError
from ..flows import copy_flow, read_dag_file, write_dag_file
from ..pf import (
    COMPLETED,
    FAILED,
    ConcurrencyLimit,
    NewRun,
    StoredRun,
    begin_run,
    end_run,
    find_stored_run,
    require_connection,
)
from .app_engine import AppEngine
from .line_inputs import line_inputs
from .line_queue import run_queue
from .properties import TOKEN_COUNTS
from .records import LineRecords, plain_value, read_completed_lines
from .store import SNAPSHOT, write_results

_tokens: contextvars.ContextVar[Counter[str] | None] = contextvars.ContextVar(
    "line_tokens", default=None
)


@dataclass
class _Batch:
    """A batch that is executed.

    Attributes:
        new: the run.
        folder: the folder of the run.
        records: writes the records of the lines.
        results: line number -> result, of the lines that have ended.
        tokens: the tokens of all lines.
    """

    new: NewRun
    folder: Path
    records: LineRecords
    results: dict[int, LineResult] = field(default_factory=dict)
    tokens: Counter[str] = field(default_factory=Counter)


def run_lines(new: NewRun, limit: ConcurrencyLimit, on_line: Callable[[bool], None]) -> StoredRun:
    """Run a flow over a data file, in this process, with one thread for each line in flight.

    Args:
        new: the run.
        limit: how many lines may be in flight; `limit.stop()` ends the batch after the lines in flight.
        on_line: called when a line has ended; the argument is whether it completed.

    Raises:
        OpsError: the flow cannot run, or a source of its inputs does not exist; nothing is written. Or
            the run failed as a whole. Failed lines do not raise.
    """
    inputs = line_inputs(new.data, new.base, new.column_mapping)
    with AppEngine(new.app) if new.app else _load_engine(new) as engine:
        earlier = _earlier_lines(new.resume_from)
        folder = begin_run(new)
        started = time.monotonic()
        status = FAILED
        counts: dict[str, Any] = {}
        try:
            _write_snapshot(new, folder)
            batch = _Batch(new, folder, LineRecords(folder, new.name))
            _copy_earlier(batch, engine, earlier, on_line)
            missing = {line: row for line, row in inputs.items() if line not in batch.results}
            _run_missing(batch, engine, missing, limit, on_line)
            counts = _finish(batch, engine, time.monotonic() - started)
            status = COMPLETED
        finally:
            end_run(new.name, status, counts)
    run = find_stored_run(new.name)
    if run is None:
        raise OpsError(f"the run {new.name} was deleted while it was running")
    return run


def _load_engine(new: NewRun) -> Engine:
    """Return the engine of a run's flow with its variant and its connections."""
    if new.flow is None:
        raise OpsError(f"the run {new.name} has no flow", "Choose a run of a flow.")
    try:
        flow = load_flow(new.flow, new.variant)
        return Engine(override_inputs(flow, new.connections or {}), require_connection)
    except FlowError as error:
        raise OpsError(f"{new.flow} cannot run: {error}") from error
    except Phi3Error as error:
        raise OpsError(str(error), error.hint) from error


def _earlier_lines(name: str | None) -> tuple[Path, dict[int, Any]] | None:
    """Return folder and completed lines of the run that is resumed, or None."""
    if name is None:
        return None
    run = find_stored_run(name)
    if run is None:
        raise OpsError(f"the run {name!r} does not exist", "`phi3 runs` lists the runs.")
    return run.folder, read_completed_lines(run.folder)


def _copy_earlier(
    batch: _Batch,
    engine: Engine | AppEngine,
    earlier: tuple[Path, dict[int, Any]] | None,
    on_line: Callable[[bool], None],
) -> None:
    if earlier is None:
        return
    if isinstance(engine, AppEngine):
        raise OpsError("a run of --app cannot be resumed", "Start a new run.")
    folder, lines = earlier
    for number, line in sorted(lines.items()):
        # A line without the outputs that an aggregation needs runs again.
        with suppress(LineError):
            restored = restore_line(engine.flow, line.inputs, line.outputs, line.node_outputs)
            batch.records.copy_line(folder, number)
            batch.results[number] = restored
            on_line(True)


def _run_missing(
    batch: _Batch,
    engine: Engine | AppEngine,
    inputs: Mapping[int, Mapping[str, Any]],
    limit: ConcurrencyLimit,
    on_line: Callable[[bool], None],
) -> None:
    token_counts: dict[int, Counter[str]] = {}

    def run_line(number: int, row: Mapping[str, Any]) -> LineResult:
        token_counts[number] = Counter(dict.fromkeys(TOKEN_COUNTS, 0))
        _tokens.set(token_counts[number])
        return engine.run(row)

    def on_result(number: int, result: LineResult) -> None:
        batch.results[number] = result
        tokens = token_counts.pop(number)
        batch.tokens.update(tokens)
        batch.records.add(number, result, tokens)
        result.node_runs = {}  # a long batch would keep the inputs and outputs of all nodes
        on_line(result.error is None)

    with observe_calls(_TokenObserver()):
        run_queue(inputs, run_line, on_result, limit)


class _TokenObserver(CallObserver):
    """Adds the tokens of each answer to the line in whose context the call runs."""

    def on_answered(self, reply: Reply) -> None:
        counts = _tokens.get()
        if counts is None or reply.usage is None:
            return
        for name in TOKEN_COUNTS:
            counts[name] += getattr(reply.usage, name) or 0


def _finish(batch: _Batch, engine: Engine | AppEngine, seconds: float) -> dict[str, Any]:
    """Aggregate, write the results, and return the run's system metrics."""
    results = dict(sorted(batch.results.items()))
    aggregation = AggregationResult()
    if engine.has_aggregation:
        aggregation = engine.aggregate(list(results.values()))
    for run in aggregation.node_runs.values():
        batch.records.add_aggregation(run)
    completed = {number: line for number, line in results.items() if line.error is None}
    failures = [
        {"line_number": number, "error": line.error.as_dict()}
        for number, line in results.items()
        if line.error is not None
    ]
    if aggregation.error is not None:
        node = aggregation.error.node
        failures.append({"error": aggregation.error.as_dict(), "aggregation_node_name": node})
    write_results(
        batch.folder,
        inputs={number: _plain(line.inputs) for number, line in results.items()},
        answers={number: _plain(line.outputs) for number, line in completed.items()},
        failures=failures,
        metrics=aggregation.metrics,
    )
    counts = {"__pf__.lines.completed": len(completed)}
    counts["__pf__.lines.failed"] = len(results) - len(completed)
    return {**batch.tokens, "duration": round(seconds, 6), **counts}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them."""
    return dict(json.loads(json.dumps(values, default=plain_value)))


def _write_snapshot(new: NewRun, folder: Path) -> None:
    """Copy the flow as it runs: with the connections that replace its own."""
    if new.flow is None or new.app:
        return
    copy_flow(new.flow, folder / SNAPSHOT, follow_links=True)
    if not new.connections:
        return
    dag = folder / SNAPSHOT / "flow.dag.yaml"
    content = read_dag_file(dag)
    for node in content["nodes"]:
        node.setdefault("inputs", {}).update(new.connections.get(node["name"], {}))
    write_dag_file(dag, content)
