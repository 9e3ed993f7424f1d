"""Stop on a signal: at once where nothing is lost, and after the current step during training."""

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
# Further signals within this many seconds repeat the first one: a terminal sends SIGINT to the launcher
# as well, and the launcher sends it again.
REPEAT_SECONDS = 2.0
RESEND_SECONDS = 0.05  # delay before a signal whose exception was lost is sent again


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived. It is not an Exception, so that no library handles it.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        self.number = number


_deferring = False  # whether the first signal is recorded instead of raised
_pending: int | None = None
_pending_since = 0.0  # time.monotonic()


def pending_signal() -> int | None:
    """Return the signal that arrived since `defer_first_signal` began, or None."""
    return _pending


def install_handlers() -> None:
    """Make the signals raise Stopped from now on."""
    for number in SIGNALS:
        signal.signal(number, _handle)
    sys.unraisablehook = _resend_lost_signal


def _resend_lost_signal(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again if Python dropped its Stopped, as it does with exceptions in a `__del__`."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    for number in SIGNALS:
        signal.signal(number, _handle)
    timer = threading.Timer(RESEND_SECONDS, os.kill, [os.getpid(), unraisable.exc_value.number])
    timer.daemon = True
    timer.start()


@contextmanager
def defer_first_signal() -> Iterator[None]:
    """Record the first signal in this block, so that training ends after a step; a second one raises.

    Raises:
        Stopped: a signal arrived, but no further step followed.
    """
    global _deferring, _pending
    _deferring, _pending = True, None
    try:
        yield
    finally:
        _deferring = False
    if _pending is not None:
        _handle(_pending, None)


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore the signals in this block, which must be short."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending, _pending_since
    if _deferring and _pending is None:
        _pending, _pending_since = number, time.monotonic()
        return
    if _deferring and time.monotonic() - _pending_since < REPEAT_SECONDS:
        return
    # A further Ctrl-C must not interrupt the clean-up.
    for handled in SIGNALS:
        signal.signal(handled, signal.SIG_IGN)
    raise Stopped(number)
