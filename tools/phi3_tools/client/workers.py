"""Threads that run blocking calls for an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

IDLE_S = 10.0  # seconds after which a thread without work ends


class Workers:
    """A pool of daemon threads.

    The threads of `concurrent.futures` keep a process from ending until the last call has its answer.
    asyncio's own pool also has far fewer threads than the requests that an endpoint takes.

    Args:
        size: maximum number of threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of the work, which runs in a thread, in the context of the caller.

        If the caller is cancelled, work that has not begun is dropped. Other work continues.
        """
        future: Future[T] = Future()
        context = contextvars.copy_context()  # it holds the parent of the call's span
        self._submit(lambda: context.run(_complete, future, work))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end after the work that is waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _submit(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._waiting.append(work)
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._work, name="phi3", daemon=True).start()

    def _work(self) -> None:
        while work := self._next():
            work()
            del work  # its result must not stay in memory while the thread waits

    def _next(self) -> Callable[[], None] | None:
        """Return the next work, or None if the thread should end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting or self._closed, IDLE_S)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None


def _complete(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
