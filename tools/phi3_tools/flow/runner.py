"""Runs the nodes of lines: in the line's thread, in further threads, or in an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ..client import CallGroup
from .errors import LineError, cancelled_line
from .results import COMPLETED, FAILED, NodeRun
from .schedule import Schedule
from .spans import flow_span
from .tools import Tool

T = TypeVar("T")


class Runner:
    """The threads and the event loop of an engine; each is made when it is first needed.

    Args:
        max_threads: number of threads for lines at most, and the same number for nodes.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    # -- nodes -------------------------------------------------------------------------------------

    def run_nodes(
        self, schedule: Schedule, calls: CallGroup, *, finishes_others: bool = False
    ) -> None:
        """Run all nodes of a line whose tools are functions.

        Args:
            schedule: the state of the line.
            calls: gets the calls of its nodes to a Phi-3 endpoint.
            finishes_others: whether nodes that run when another one fails may end; else their calls are
                ended.

        Raises:
            LineError: a node failed, or a reference cannot be resolved.
        """
        ready = schedule.start()
        running: dict[Future[Any], Tool] = {}
        try:
            while ready or running:
                if calls.is_cancelled:
                    raise cancelled_line()
                if len(ready) == 1 and not running:
                    tool = ready.pop()
                    ready = schedule.complete(tool, self._run_node(schedule, tool, calls))
                    continue
                for tool in ready:
                    running[self._submit("node", self._run_node, schedule, tool, calls)] = tool
                ready = []
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    ready += schedule.complete(running.pop(future), future.result())
        except BaseException as error:
            if finishes_others and isinstance(error, LineError):
                wait(running)
            else:
                self._abandon(running, calls)
            raise

    async def arun_nodes(
        self, schedule: Schedule, calls: CallGroup, *, finishes_others: bool = False
    ) -> None:
        """Run all nodes of a line; coroutines run in this event loop. See `run_nodes`."""
        ready = schedule.start()
        running: dict[asyncio.Future[Any], Tool] = {}
        try:
            while ready or running:
                for tool in ready:
                    running[self._task(schedule, tool, calls)] = tool
                ready = []
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    ready += schedule.complete(running.pop(task), task.result())
        except BaseException as error:
            if not (finishes_others and isinstance(error, LineError)):
                calls.cancel()
                for task in running:
                    task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise

    def _task(self, schedule: Schedule, tool: Tool, calls: CallGroup) -> asyncio.Future[Any]:
        if tool.is_async:
            return asyncio.ensure_future(self._arun_node(schedule, tool, calls))
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        pool = self._pool("node")
        return loop.run_in_executor(pool, context.run, self._run_node, schedule, tool, calls)

    def _run_node(self, schedule: Schedule, tool: Tool, calls: CallGroup) -> Any:
        run = _begin(schedule, tool)
        try:
            with calls.collect(), flow_span("node", run.node):
                output = tool.function(**run.inputs)
        except Exception as error:
            raise _failed(run, error) from error
        return _completed(run, output)

    async def _arun_node(self, schedule: Schedule, tool: Tool, calls: CallGroup) -> Any:
        run = _begin(schedule, tool)
        try:
            with calls.collect(), flow_span("node", run.node):
                output = tool.function(**run.inputs)
                if inspect.iscoroutine(output):
                    output = await output
        except Exception as error:
            raise _failed(run, error) from error
        return _completed(run, output)

    def _abandon(self, running: dict[Future[Any], Tool], calls: CallGroup) -> None:
        """Stop the other nodes of a line that failed: those that run lose their connections."""
        if running:
            calls.cancel()
        for future in running:
            future.cancel()

    # -- threads and the loop ----------------------------------------------------------------------

    async def in_line_thread(self, work: Callable[[], T]) -> T:
        """Run a line in a thread, in a copy of this context."""
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool("line"), context.run, work)

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the engine's own event loop, and return its result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._own_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the threads and the loop."""
        with self._lock:
            pools, self._pools = self._pools, {}
            loop, self._loop = self._loop, None
        for pool in pools.values():
            pool.shutdown(wait=False)
        if loop:
            loop.call_soon_threadsafe(loop.stop)

    def _submit(self, kind: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
        return self._pool(kind).submit(contextvars.copy_context().run, function, *arguments)

    def _pool(self, kind: str) -> ThreadPoolExecutor:
        pool = self._pools.get(kind)
        if pool is None:
            with self._lock:
                pool = self._pools.get(kind) or ThreadPoolExecutor(
                    self._max_threads, thread_name_prefix=f"phi3-{kind}"
                )
                self._pools[kind] = pool
        return pool

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), daemon=True).start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _begin(schedule: Schedule, tool: Tool) -> NodeRun:
    run = NodeRun(tool.node.name, FAILED, started=time.time())
    run.inputs = schedule.arguments(tool)
    run.seconds = -time.perf_counter()
    schedule.runs[run.node] = run
    return run


def _completed(run: NodeRun, output: Any) -> Any:
    run.seconds += time.perf_counter()
    run.status, run.output = COMPLETED, output
    return output


def _failed(run: NodeRun, cause: Exception) -> LineError:
    run.seconds += time.perf_counter()
    run.error = LineError.of_node(run.node, cause)
    return run.error
