"""The one place that reaches below promptflow's public API: its batch engine's inner loop.

Why: `pf run create` starts a process for every four lines and reaches 15 to 50 lines a second, and the
SDK's asynchronous mode wakes every waiting line whenever one ends, writes each line's record twice, makes
a thread pool for every line, looks once a second whether it is done, and has neither a pace that an
endpoint can slow down nor an end that Ctrl-C can bring about without losing what was answered. It reads
data through pandas, which changes what a column's name makes it take for a date and rounds numbers. All
else (line execution, storage, aggregation) is promptflow's own, so that the run is one of its runs.

What is replaced, for the time of `engine(...)`, is the table in it: the batch engine by a subclass with a
loop of its own, the thread pool of its node scheduler, the reading of data, the listing of installed
tools and the writing of records by quicker ones. Read from promptflow 1.18.5; where the parts do not look
as they did there, `fits()` says so and batches run on the stock engine.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import json
import pkgutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import read_jsonl, write_jsonl
from .client import pf_client
from .pace import THROTTLED, ConcurrencyLimit

# How often a line that ended by a 429, after all of the client's own attempts, is run again.
MOST_RUNS = 5
LINE_NUMBER = "line_number"
_BATCH = "promptflow._sdk._orchestrator.run_submitter:BatchEngine"
_STORAGE = "promptflow._sdk.operations._local_storage_operations"
# The parameters of what is replaced, and of what that calls.
EXPECTED = {
    f"{_BATCH}._exec_in_task": [
        "self",
        "batch_inputs",
        "run_id",
        "output_dir",
        "raise_on_line_failure",
        "previous_line_results",
    ],
    f"{_BATCH}._exec_batch": ["self", "line_results", "batch_inputs", "run_id"],
    f"{_STORAGE}:LocalStorageOperations.dump_inputs_and_outputs": ["self"],
    f"{_STORAGE}:json_dump": ["obj", "file"],
    "promptflow._core.tools_manager:_get_entry_points_by_group": ["group"],
    "promptflow._core.tools_manager:collect_package_tools": ["keys"],
    "promptflow.batch._batch_inputs_processor:load_data": [
        "local_path",
        "logger",
        "max_rows_count",
    ],
    "promptflow.tracing._utils:serialize": ["value", "remove_null", "serialization_funcs"],
}
# What takes the place of these is made for them alone.
SAME = {
    f"{_STORAGE}:asdict": dataclasses.asdict,
    "promptflow.executor._async_nodes_scheduler:ThreadPoolExecutor": ThreadPoolExecutor,
}
PLAIN = frozenset({str, int, float, bool, type(None)})  # what JSON holds as it is
_one_at_a_time = threading.Lock()


def engine_is_supported() -> bool:
    """Whether promptflow's engine has the parts that are replaced, as they were when this was written."""
    pf_client()  # makes promptflow quiet before it is imported
    try:
        found = {
            name: list(inspect.signature(pkgutil.resolve_name(name)).parameters)
            for name in EXPECTED
        }
        same = all(pkgutil.resolve_name(name) is part for name, part in SAME.items())
        return found == EXPECTED and same
    except (ImportError, AttributeError, ValueError):
        return False


@contextmanager
def limited_engine(pace: ConcurrencyLimit, on_line: Callable[[Any], None]) -> Iterator[None]:
    """Have the batches that start inside the block run at a pace; one block at a time in a process.

    Args:
        pace: how many lines may be in flight; `pace.stop()` ends the batch after those.
        on_line: called with promptflow's `LineResult` when a line has ended for good.
    """
    from promptflow._core import tools_manager
    from promptflow._sdk._orchestrator import run_submitter
    from promptflow._sdk.operations import _local_storage_operations as storage
    from promptflow.batch import _batch_inputs_processor as inputs
    from promptflow.executor import _async_nodes_scheduler as scheduler
    from promptflow.tracing import _utils as tracing

    threads = ThreadPoolExecutor(pace.most, thread_name_prefix="line")
    serialize = _serializer(tracing.serialize)
    replaced = [
        (run_submitter, "BatchEngine", _paced(run_submitter.BatchEngine, pace, on_line)),
        (scheduler, "ThreadPoolExecutor", shared_line_pool(threads)),
        (inputs, "load_data", _loader(inputs.load_data)),
        (tools_manager, "collect_package_tools", _once(tools_manager)),
        (tracing, "serialize", serialize),  # which calls itself by this name
        (storage, "serialize", serialize),
        (storage, "asdict", vars),  # a record's one value that is no plain one was just made for it
        (storage, "json_dump", _dump_at_once),
        (storage.LocalStorageOperations, "dump_inputs_and_outputs", _dump_inputs_and_outputs),
    ]
    stock = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    with _one_at_a_time:
        try:
            for module, name, ours in replaced:
                setattr(module, name, ours)
            yield
        finally:
            for module, name, theirs in stock:
                setattr(module, name, theirs)
            threads.shutdown(wait=False)


@contextmanager
def shared_tool_threads(most: int) -> Iterator[None]:
    """Have promptflow's serving app run its sync tools on these threads, not on new ones a request.

    Args:
        most: requests whose tools run at once.
    """
    from promptflow.executor import _async_nodes_scheduler as scheduler

    stock = scheduler.ThreadPoolExecutor
    threads = ThreadPoolExecutor(most, thread_name_prefix="tool")
    if stock is ThreadPoolExecutor:
        scheduler.ThreadPoolExecutor = shared_line_pool(threads)
    try:
        yield
    finally:
        scheduler.ThreadPoolExecutor = stock
        threads.shutdown(wait=False)


def _loader(stock: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    """JSONL as it is. Every row has every column, as in the stock engine; what is missing is null."""

    def load_data(
        local_path: Path, *, logger: Any = None, max_rows_count: int | None = None
    ) -> list[dict[str, Any]]:
        if Path(local_path).suffix != ".jsonl":
            return stock(local_path, logger=logger, max_rows_count=max_rows_count)
        rows = read_jsonl(Path(local_path))[:max_rows_count]
        columns = {name: None for row in rows for name in row}
        return [{**columns, **row} for row in rows]

    return load_data


def _once(manager: Any) -> Callable[..., dict[str, Any]]:
    """The tools of the packages whose names begin the keys, read once.

    promptflow reads every installed package's tools five times for one run.

    Args:
        manager: promptflow's module of that function.
    """
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    collect, points = manager.collect_package_tools, manager._get_entry_points_by_group

    def collected(keys: Sequence[str] | None = None) -> dict[str, Any]:
        wanted = tuple(sorted(set(keys or ())))
        if wanted not in known:
            named = {key.partition(".")[0] for key in wanted}
            manager._get_entry_points_by_group = lambda group: [
                point for point in points(group) if point.module.partition(".")[0] in named
            ]
            try:
                known[wanted] = collect(keys)
            finally:
                manager._get_entry_points_by_group = points
            if known[wanted].keys() != set(wanted):  # a tool may also be listed by another package
                known[wanted] = collect(keys)
        return copy.deepcopy(known[wanted])

    return collected


def _serializer(stock: Callable[..., Any]) -> Callable[..., Any]:
    """The same values; promptflow asks of each string whether it is a connection or a pydantic model."""

    def serialize(value: Any, remove_null: bool = False, serialization_funcs: Any = None) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is dict:
            return {
                name: serialize(inner, remove_null, serialization_funcs)
                for name, inner in value.items()
            }
        if kind is list:
            return [serialize(inner, remove_null, serialization_funcs) for inner in value]
        return stock(value, remove_null, serialization_funcs)

    return serialize


def _dump_at_once(value: Any, path: Path) -> None:
    """The same file as `json.dump` writes, whose thousands of small writes take most of its time."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", newline="\n")


def _dump_inputs_and_outputs(storage: Any) -> None:
    """What `pf run show-details` reads, from the lines' records; pandas alone takes longer to import."""
    records = sorted(storage._run_infos_folder.glob("*.jsonl"))
    infos = [record["run_info"] for file in records for record in read_jsonl(file)]
    answered = [info for info in infos if info["output"] is not None]
    write_jsonl(storage._sdk_inputs_path, (info["inputs"] for info in infos))
    write_jsonl(
        storage._sdk_output_path,
        ({**info["output"], LINE_NUMBER: info["index"]} for info in answered),
    )


def shared_line_pool(threads: ThreadPoolExecutor) -> Callable[..., Any]:
    """In place of a thread pool for every line: the same one for all, each call in its line's context.

    Args:
        threads: that the sync tools of all lines run on.
    """

    class LinePool:
        def __init__(self, max_workers: int, initializer: Any, initargs: tuple[Any, ...]) -> None:
            (self._context,) = initargs

        def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
            # A copy: a context can only be entered once at a time, and nodes run side by side.
            return threads.submit(self._context.copy().run, function, *args)

        def shutdown(self, wait: bool = True) -> None:
            pass

    return LinePool


def _paced(stock: type, pace: ConcurrencyLimit, on_line: Callable[[Any], None]) -> type:
    class PacedEngine(stock):  # type: ignore[misc]
        async def _exec_in_task(
            self,
            batch_inputs: list[Mapping[str, Any]],
            run_id: str | None = None,
            output_dir: Any = None,
            raise_on_line_failure: bool = False,
            previous_line_results: list[Any] | None = None,
        ) -> Any:
            from promptflow.executor._result import AggregationResult

            for line in previous_line_results or []:
                on_line(line)
            results: list[Any] = []
            return await self._exec(
                batch_inputs,
                run_id,
                output_dir,
                raise_on_line_failure,
                previous_line_results,
                results,
                AggregationResult({}, {}, {}),
            )

        async def _exec_batch(
            self,
            line_results: list[Any],
            batch_inputs: list[Mapping[str, Any]],
            run_id: str | None = None,
        ) -> None:
            async def run_line(line: Mapping[str, Any]) -> Any:
                return await self._executor_proxy.exec_line_async(line, line["line_number"], run_id)

            def keep(line: Any) -> None:
                line_results.append(line)
                on_line(line)

            await _Lines(batch_inputs, run_line, keep, pace).run()

    return PacedEngine


class _Lines:
    """The lines of a batch, run as the pace allows; lives in one event loop."""

    def __init__(
        self,
        inputs: list[Mapping[str, Any]],
        run_line: Callable[[Mapping[str, Any]], Any],
        keep: Callable[[Any], None],
        pace: ConcurrencyLimit,
    ) -> None:
        self._waiting = deque((line, 1) for line in inputs)
        self._run_line, self._keep, self._pace = run_line, keep, pace
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Run them all, or those that had started when the pace was stopped."""
        self._fill()
        await self._ended

    def _fill(self) -> None:
        while self._waiting and self._pace.start():
            line, attempt = self._waiting.popleft()
            task = asyncio.ensure_future(self._run_line(line))
            task.add_done_callback(lambda done, line=line, n=attempt: self._done(done, line, n))
        if not self._pace.in_flight and not self._ended.done():
            self._ended.set_result(None)

    def _done(self, task: asyncio.Future[Any], line: Mapping[str, Any], attempt: int) -> None:
        if error := task.exception():
            # The engine's own fault, not the line's: promptflow ends the whole run by it.
            self._pace.stop()
            self._pace.finish()
            if not self._ended.done():
                self._ended.set_exception(error)
            return
        result = task.result()
        throttled = error_class_name(result) == THROTTLED
        self._pace.finish(throttled=throttled)
        if throttled and attempt < MOST_RUNS and not self._pace.stopped:
            self._pace.throttled()
            self._waiting.append((line, attempt + 1))
        else:
            self._keep(result)
        self._fill()


def error_class_name(line: Any) -> str | None:
    """The class of the exception that a line failed by, or None where it did not fail.

    Args:
        line: promptflow's `LineResult`.
    """
    error = line.run_info.error
    if not error:
        return None
    # A tool's own exception comes as additional information; phi3_tools' tools put the class in front.
    for details in error.get("additionalInfo") or []:
        if name := (details.get("info") or {}).get("type"):
            return str(name)
    return str(error.get("message", "")).partition(":")[0]
