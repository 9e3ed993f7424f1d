"""Groups of calls that another thread can end together, such as the calls of one line of a flow."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .retry import Deadline


class CallGroup:
    """Calls that can be ended together.

    A cancelled group ends its calls at once and closes their connections. Calls that begin later end
    before they are sent.

    Example:
        >>> calls = CallGroup()
        >>> with calls.collect():
        ...     client.chat(question)  # another thread may call calls.cancel()
    """

    def __init__(self) -> None:
        self._deadlines: weakref.WeakSet[Deadline] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_cancelled = False

    def cancel(self) -> None:
        """End the calls of the group; may be called from any thread."""
        with self._lock:
            self._is_cancelled = True
            deadlines = list(self._deadlines)
        for deadline in deadlines:
            deadline.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def add(self, deadline: Deadline) -> None:
        """Add the deadline of a call that begins."""
        with self._lock:
            self._deadlines.add(deadline)
            is_cancelled = self._is_cancelled
        if is_cancelled:
            deadline.cancel()

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Add the calls that begin in the block, in this context, to the group."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


def join_group(deadline: Deadline) -> None:
    """Add a call's deadline to the group of the context, if there is a group."""
    group = _current.get()
    if group:
        group.add(deadline)


_current: ContextVar[CallGroup | None] = ContextVar("phi3_call_group", default=None)
