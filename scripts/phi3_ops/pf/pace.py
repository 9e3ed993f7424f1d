"""How many lines of a batch are in flight: at most what the user set, fewer after each 429.

The limit follows TCP's rule, additive increase and multiplicative decrease: it grows slowly until the
endpoint refuses a call, and is then halved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from phi3_tools import RateLimitedError, Reply
from phi3_tools.client import CallObserver

BACK_OFF = 0.5  # factor for the number of lines in flight after a 429
# Lines that run at once meet the same refusal: a second cut within this time would punish it twice.
CUT_EVERY_S = 1.0


class ConcurrencyLimit:
    """The number of lines in flight. Every method may be called from any thread.

    Args:
        maximum: upper bound of the limit.

    Attributes:
        in_flight: number of lines that are running.
        stopped: no further line may start.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.in_flight = 0
        self.stopped = False
        self._limit = float(maximum)
        self._cut_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        """Number of lines that may be in flight now; at least one."""
        return max(1, int(self._limit))

    def start(self) -> bool:
        """Return whether one more line may start; that line then counts as in flight."""
        with self._lock:
            is_free = not self.stopped and self.in_flight < self.limit
            self.in_flight += is_free
            return is_free

    def finish(self, *, throttled: bool = False) -> None:
        """Note that a line is no longer in flight; the limit grows unless the line ended with a 429."""
        with self._lock:
            self.in_flight -= 1
            if not throttled:
                self._limit = min(self.maximum, self._limit + 1 / self._limit)

    def throttle(self) -> None:
        """Lower the limit, because the endpoint refused a call of a line in flight with a 429."""
        with self._lock:
            now = time.monotonic()
            if now - self._cut_at >= CUT_EVERY_S:
                self._cut_at = now
                self._limit = max(1.0, min(self._limit, self.in_flight) * BACK_OFF)

    def stop(self) -> None:
        """Start no further line."""
        self.stopped = True


class BatchCallObserver(CallObserver):
    """Passes what happens in the calls of a batch on: each 429, and the tokens of each answer.

    The client retries a 429 itself, so a line can be slow without failing. Only calls of this process
    are observed.

    Args:
        limit: throttled after each 429.
        on_tokens: called with the tokens of each answer, prompt and completion together.
    """

    def __init__(self, limit: ConcurrencyLimit, on_tokens: Callable[[int], None]) -> None:
        self._limit, self._on_tokens = limit, on_tokens

    def on_throttled(self, error: RateLimitedError) -> None:
        self._limit.throttle()

    def on_answered(self, reply: Reply) -> None:
        if reply.usage:
            self._on_tokens(reply.usage.total_tokens)
