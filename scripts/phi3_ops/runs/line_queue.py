"""Run the lines of a batch in threads, as many at once as a `ConcurrencyLimit` allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from phi3_tools import RateLimitedError
from phi3_tools.flow import LineResult

from ..pf import ConcurrencyLimit

MAX_LINE_RUNS = 5  # how often a line runs that ends with a 429, after all retries of the client

Outcome = tuple[int, int, Any]  # line number, attempt, LineResult or exception


def run_queue(
    inputs: Mapping[int, Mapping[str, Any]],
    run_line: Callable[[int, Mapping[str, Any]], LineResult],
    on_result: Callable[[int, LineResult], None],
    limit: ConcurrencyLimit,
) -> None:
    """Run all lines; after `limit.stop()`, only those that have started.

    Args:
        inputs: line number -> its inputs.
        run_line: runs a line, in a thread.
        on_result: called in this thread with each line that has ended for good.
        limit: how many lines may be in flight.
    """
    waiting = deque((line, 1) for line in inputs)
    ended: SimpleQueue[Outcome] = SimpleQueue()
    running = 0

    def work(line: int, attempt: int) -> None:
        try:
            result: Any = run_line(line, inputs[line])
        except BaseException as error:
            result = error
        ended.put((line, attempt, result))

    threads = ThreadPoolExecutor(limit.maximum, thread_name_prefix="line")
    try:
        while True:
            while waiting and limit.start():
                threads.submit(work, *waiting.popleft())
                running += 1
            if not running:
                return
            line, attempt, result = ended.get()
            running -= 1
            if isinstance(result, BaseException):  # an error of the engine, not of the line
                limit.stop()
                limit.finish()
                raise result
            throttled = _is_throttled(result)
            limit.finish(throttled=throttled)
            if throttled and attempt < MAX_LINE_RUNS and not limit.stopped:
                limit.throttle()
                waiting.append((line, attempt + 1))
            else:
                on_result(line, result)
    finally:
        threads.shutdown(wait=False)


def _is_throttled(result: LineResult) -> bool:
    error = result.error
    return error is not None and RateLimitedError.__name__ in (error.code, error.cause_class)
