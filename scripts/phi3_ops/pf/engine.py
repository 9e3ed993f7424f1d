"""Prompt flow's batch engine with another inner loop, which obeys a `ConcurrencyLimit`.

Why another loop: `pf run create` starts a process for every four lines and reaches 15 to 50 lines per
second. The SDK's asynchronous mode wakes every waiting line whenever one line ends, writes each record
twice, creates a thread pool for every line, and checks only once a second whether the run has ended. It
cannot slow down while a run is in progress, and a Ctrl-C loses the answers.

Everything else (line execution, storage, aggregation) is Prompt flow's own code, so the result is an
ordinary run. `expectations` lists the parts of Prompt flow that are replaced.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from phi3_tools import RateLimitedError

from .expectations import COMPLETED, LINE_NUMBER
from .pace import ConcurrencyLimit
from .replacements import (
    cached_tool_lister,
    dump_inputs_and_outputs,
    dump_json_at_once,
    fast_serializer,
    shared_line_pool,
    unconverted_loader,
)

MAX_LINE_RUNS = 5  # how often a line runs that ends with a 429, after all retries of the client
_one_at_a_time = threading.Lock()


@contextmanager
def limited_engine(limit: ConcurrencyLimit, on_line: Callable[[bool], None]) -> Iterator[None]:
    """Make the batches that start inside the block obey a limit; a process runs one block at a time.

    Args:
        limit: how many lines may be in flight; `limit.stop()` ends the batch after the lines in flight.
        on_line: called when a line has ended for good; the argument is whether it completed.
    """
    threads = ThreadPoolExecutor(limit.maximum, thread_name_prefix="line")
    replacements = _replacements(limit, on_line, threads)
    stock = [(module, name, getattr(module, name)) for module, name, _ in replacements]
    with _one_at_a_time:
        try:
            for module, name, replacement in replacements:
                setattr(module, name, replacement)
            yield
        finally:
            for module, name, original in stock:
                setattr(module, name, original)
            threads.shutdown(wait=False)


def _replacements(
    limit: ConcurrencyLimit, on_line: Callable[[bool], None], threads: ThreadPoolExecutor
) -> list[tuple[Any, str, Any]]:
    """Return module or class, name and new value of each part of Prompt flow that is replaced."""
    from promptflow._core import tools_manager
    from promptflow._sdk._orchestrator import run_submitter
    from promptflow._sdk.operations import _local_storage_operations as storage
    from promptflow.batch import _batch_inputs_processor as inputs
    from promptflow.executor import _async_nodes_scheduler as scheduler
    from promptflow.tracing import _utils as tracing

    serialize = fast_serializer(tracing.serialize)
    return [
        (run_submitter, "BatchEngine", _limited(run_submitter.BatchEngine, limit, on_line)),
        (scheduler, "ThreadPoolExecutor", shared_line_pool(threads)),
        (inputs, "load_data", unconverted_loader(inputs.load_data)),
        (tools_manager, "collect_package_tools", cached_tool_lister(tools_manager)),
        (tracing, "serialize", serialize),  # Prompt flow's own calls itself by this name
        (storage, "serialize", serialize),
        # The one value of a record that is not a JSON type was created for that record alone.
        (storage, "asdict", vars),
        (storage, "json_dump", dump_json_at_once),
        (storage.LocalStorageOperations, "dump_inputs_and_outputs", dump_inputs_and_outputs),
    ]


def _limited(stock: type, limit: ConcurrencyLimit, on_line: Callable[[bool], None]) -> type:
    """Return a subclass of Prompt flow's `BatchEngine` that runs lines as the limit allows."""

    class LimitedEngine(stock):  # type: ignore[misc]
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
                on_line(_is_completed(line))
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
                return await self._executor_proxy.exec_line_async(line, line[LINE_NUMBER], run_id)

            def on_result(line: Any) -> None:
                line_results.append(line)
                on_line(_is_completed(line))

            await _LineQueue(batch_inputs, run_line, on_result, limit).run()

    return LimitedEngine


class _LineQueue:
    """Runs the lines of a batch as the limit allows. An instance belongs to one event loop.

    Args:
        inputs: the inputs of each line.
        run_line: runs a line and returns Prompt flow's `LineResult`.
        on_result: called with the `LineResult` of each line that has ended for good.
        limit: how many lines may be in flight.
    """

    def __init__(
        self,
        inputs: list[Mapping[str, Any]],
        run_line: Callable[[Mapping[str, Any]], Any],
        on_result: Callable[[Any], None],
        limit: ConcurrencyLimit,
    ) -> None:
        self._waiting = deque((line, 1) for line in inputs)
        self._run_line, self._on_result, self._limit = run_line, on_result, limit
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Run all lines; after `limit.stop()`, only those that have started."""
        self._fill()
        await self._ended

    def _fill(self) -> None:
        while self._waiting and self._limit.start():
            line, attempt = self._waiting.popleft()
            task = asyncio.ensure_future(self._run_line(line))
            task.add_done_callback(lambda done, line=line, n=attempt: self._end(done, line, n))
        if not self._limit.in_flight and not self._ended.done():
            self._ended.set_result(None)

    def _end(self, task: asyncio.Future[Any], line: Mapping[str, Any], attempt: int) -> None:
        if error := task.exception():
            # This is an error of the engine, not of the line: Prompt flow ends the whole run with it.
            self._limit.stop()
            self._limit.finish()
            if not self._ended.done():
                self._ended.set_exception(error)
            return
        result = task.result()
        throttled = failed_with(result, RateLimitedError)
        self._limit.finish(throttled=throttled)
        if throttled and attempt < MAX_LINE_RUNS and not self._limit.stopped:
            self._limit.throttle()
            self._waiting.append((line, attempt + 1))
        else:
            self._on_result(result)
        self._fill()


def failed_with(line: Any, kind: type[BaseException]) -> bool:
    """Return whether a line failed with an exception of this very class.

    Args:
        line: Prompt flow's `LineResult`.
        kind: the class.
    """
    error = line.run_info.error
    if not error:
        return False
    # The exceptions of phi3_tools have their class as the innermost of Prompt flow's error codes. For a
    # tool of the user, Prompt flow adds the class as additional information.
    types = [(each.get("info") or {}).get("type") for each in error.get("additionalInfo") or []]
    while error.get("innerError"):
        error = error["innerError"]
    return kind.__name__ in (error.get("code"), *types)


def _is_completed(line: Any) -> bool:
    return bool(line.run_info.status.value == COMPLETED)
