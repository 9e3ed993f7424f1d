"""How many lines of a batch are in flight: as many as asked for, fewer while the endpoint says 429.

Additive increase, multiplicative decrease, as TCP does it: what the endpoint takes is found out by
asking for a little more until it refuses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phi3_tools.client import ANSWERED_LOG

BACK_OFF = 0.5  # of what is in flight, after a 429
# One crowd of lines meets one refusal: a second cut within this time would punish it twice.
CUT_EVERY_S = 1.0
THROTTLED = "RateLimited"  # the class of phi3_tools' error


class ConcurrencyLimit:
    """The number of lines in flight. Every method may be called from any thread.

    Args:
        most: never more than this.

    Attributes:
        in_flight: lines that are being run.
        stopped: no further line is to be started.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self.stopped = False
        self._limit = float(most)
        self._cut_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Lines that may be in flight now; at least one."""
        return max(1, int(self._limit))

    def start(self) -> bool:
        """Whether one more line may start; it is then counted as in flight."""
        with self._lock:
            free = not self.stopped and self.in_flight < self.limit
            self.in_flight += free
            return free

    def finish(self, *, throttled: bool = False) -> None:
        """A line is no longer in flight; unless it ended by a 429, a little more may be asked for."""
        with self._lock:
            self.in_flight -= 1
            if not throttled:
                self._limit = min(self.most, self._limit + 1 / self._limit)

    def throttled(self) -> None:
        """The endpoint said 429 to one of the lines in flight."""
        with self._lock:
            now = time.monotonic()
            if now - self._cut_at >= CUT_EVERY_S:
                self._cut_at = now
                self._limit = max(1.0, min(self._limit, self.in_flight) * BACK_OFF)

    def stop(self) -> None:
        """Start no further line."""
        self.stopped = True


class CallListener(logging.Handler):
    """Hears from the client's log what happens inside a line: each 429, and each answer's tokens.

    The client repeats a 429 by itself, so that a line may be slow without failing. Only what runs in
    this process is heard.

    Args:
        pace: is told of each 429.
        on_tokens: called with the tokens of each answer, question and answer together.
    """

    def __init__(self, pace: ConcurrencyLimit, on_tokens: Callable[[int], None]) -> None:
        super().__init__(logging.DEBUG)
        self._pace, self._on_tokens = pace, on_tokens

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.args, tuple):
            return
        if record.msg == ANSWERED_LOG:
            self._on_tokens(sum(int(count or 0) for count in record.args[1:]))  # type: ignore[call-overload]
        elif THROTTLED in record.args:
            self._pace.throttled()


@contextmanager
def listening(listener: logging.Handler) -> Iterator[None]:
    """Have a listener hear all that the client logs, and nobody else be troubled by it."""
    log = logging.getLogger("phi3_tools")
    level, propagate = log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
        log.propagate = propagate
