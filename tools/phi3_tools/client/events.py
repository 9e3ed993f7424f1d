"""Events of calls, for code that counts tokens or adapts its pace: a batch, a server.

Observers are registered for the whole process, because a tool may run in any thread and context.
Without observers an event costs the iteration over an empty tuple.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Phi3Error, RateLimitedError
from .messages import Reply

log = logging.getLogger("phi3_tools")


class CallObserver:
    """Base class of observers; override the methods that you need.

    The methods run in the thread and the context of the call, so they may read context variables.
    They must be quick, safe to call from many threads, and must not raise.
    """

    def on_throttled(self, error: RateLimitedError) -> None:
        """Handle one 429 of the endpoint (or a 424 around it), whether or not the client tries again."""

    def on_answered(self, reply: Reply) -> None:
        """Handle one complete answer; `reply.usage` is None where the token counts are not known."""

    def on_failed(self, error: Phi3Error) -> None:
        """Handle the error of one call that got no answer, after its last attempt."""


_observers: tuple[CallObserver, ...] = ()  # replaced as a whole, so that reading needs no lock
_lock = threading.Lock()


@contextmanager
def observe_calls(observer: CallObserver) -> Iterator[None]:
    """Report the calls of every client in this process to an observer while the block runs."""
    global _observers
    with _lock:
        _observers = (*_observers, observer)
    try:
        yield
    finally:
        with _lock:
            remaining = list(_observers)
            remaining.remove(observer)
            _observers = tuple(remaining)


def notify_throttled(error: RateLimitedError) -> None:
    """Report a 429 to the observers."""
    for observer in _observers:
        observer.on_throttled(error)


def notify_answered(reply: Reply) -> None:
    """Log a complete answer and report it to the observers."""
    if usage := reply.usage:
        log.debug(
            "answered at attempt %d: %d tokens in, %d out",
            reply.attempts,
            usage.prompt_tokens,
            usage.completion_tokens,
        )
    for observer in _observers:
        observer.on_answered(reply)


def notify_failed(error: Phi3Error) -> None:
    """Report the error of a call to the observers."""
    for observer in _observers:
        observer.on_failed(error)
