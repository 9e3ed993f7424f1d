"""Stopping on a signal: at once where nothing is lost by it, after the running step in training."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds in which further signals are the first one's echo: a terminal sends SIGINT to the launcher too,
# which passes it on.
ECHO = 2.0
AGAIN = 0.05  # seconds until a signal whose Stopped got lost is sent once more


class Stopped(BaseException):
    """SIGINT or SIGTERM: not an Exception, so that no library takes it for its own."""

    def __init__(self, number: int) -> None:
        self.number = number


_waiting = False  # whether the first signal is only noted
_noted: int | None = None
_noted_at = 0.0


def noted() -> int | None:
    """The signal that came since the block of `at_a_step` began."""
    return _noted


def listen() -> None:
    """Have the signals raise Stopped from now on."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it runs a `__del__`, a handler's Stopped too: signal again."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)
        return
    for number in SIGNALS:
        signal.signal(number, _stop)
    again = threading.Timer(AGAIN, os.kill, [os.getpid(), lost.exc_value.number])
    again.daemon = True
    again.start()


@contextmanager
def at_a_step() -> Iterator[None]:
    """In this block the first signal is noted, for the training to end at a step; a second stops it."""
    global _waiting, _noted
    _waiting, _noted = True, None
    try:
        yield
    finally:
        _waiting = False
    if _noted is not None:  # too late for a step
        _stop(_noted, None)


@contextmanager
def put_off() -> Iterator[None]:
    """Ignore the signals in this short block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    global _noted, _noted_at
    if _waiting and _noted is None:
        _noted, _noted_at = number, time.monotonic()
        return
    if _waiting and time.monotonic() - _noted_at < ECHO:
        return
    # A further Ctrl-C must not interrupt the clearing up.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
