"""Timeouts and attempts: every number of the client, in one place.

A scoring request is safe to repeat: it changes nothing at the endpoint, and a second answer only costs
its tokens. Therefore a request that may already have been processed (a lost connection, a timeout) is
also repeated. The rules follow the table of Microsoft's batch-scoring client: 408, 429 and 503 are
repeated; 404 while traffic is being set; 424 depending on the status inside it; other server errors, and
errors in a response with status 200, at most three times. Nothing else is repeated.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import (
    ConfigError,
    ConnectionLostError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    ModelNotReadyError,
    Phi3Error,
    RateLimitedError,
    ScoringFailedError,
    ServerError,
)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 120.0
# Prompt flow's limit is 600 s per line; a line that takes longer ends the whole asynchronous run.
DEADLINE_S = 300.0
BACKOFF_FIRST_S = 0.5
BACKOFF_FACTOR = 2.0
BACKOFF_MAX_S = 8.0
BACKOFF_JITTER = 0.25  # share of the wait that is added or subtracted at most
RETRY_AFTER_MAX_S = 60.0
MAX_ANSWER_BYTES = 32 * 2**20

# Total number of attempts, the first one included. Other errors are not repeated.
ATTEMPTS: dict[type[Phi3Error], int] = {
    RateLimitedError: 8,
    ModelNotReadyError: 8,
    EndpointTimeoutError: 4,
    ConnectionLostError: 4,
    EndpointUnreachableError: 3,
    ScoringFailedError: 3,
    ServerError: 3,
}
# Statuses whose number of attempts differs from that of their class.
ATTEMPTS_BY_STATUS = {503: 8}
TRAFFIC_BEING_SET = "specified traffic group could not be found"
TRAFFIC_ATTEMPTS = 8
_INTEGER_LIMITS = ("max_attempts", "max_answer_bytes")


@dataclass(frozen=True)
class Limits:
    """The client's limits; the defaults are the constants of this module.

    Attributes:
        connect_timeout_s: seconds to connect, for each attempt.
        read_timeout_s: seconds without data until an attempt fails.
        deadline_s: seconds for the complete call: all attempts, the waits between them, and for a stream
            the time that its reader takes.
        max_attempts: total number of attempts for errors that are repeated; None uses `ATTEMPTS`.
        max_answer_bytes: maximum size of an answer.
        backoff_first_s: seconds to wait after the first failed attempt; doubled after each further one.
        backoff_max_s: maximum wait in seconds if the endpoint names no time.
        retry_after_max_s: maximum wait in seconds if the endpoint names a time (`Retry-After`).

    Raises:
        ConfigError: a value is not a positive number.
    """

    connect_timeout_s: float = CONNECT_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S
    deadline_s: float = DEADLINE_S
    max_attempts: int | None = None
    max_answer_bytes: int = MAX_ANSWER_BYTES
    backoff_first_s: float = BACKOFF_FIRST_S
    backoff_max_s: float = BACKOFF_MAX_S
    retry_after_max_s: float = RETRY_AFTER_MAX_S

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                _positive(item.name, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Limits:
        """Return limits from texts or numbers under the attributes' names; other names are ignored.

        Raises:
            ConfigError: a value is not a positive number.
        """
        known = {item.name: values.get(item.name) for item in fields(cls)}
        return cls(**{n: _positive(n, v) for n, v in known.items() if v not in (None, "")})

    def attempts_for(self, error: Phi3Error) -> int:
        """Return the total number of attempts for a request that failed with this error."""
        attempts = _table_attempts(error)
        return self.max_attempts if self.max_attempts and attempts > 1 else attempts


def _positive(name: str, value: object) -> Any:
    """Return the value as a float, or as an int if the name is one of `_INTEGER_LIMITS`."""
    is_integer = name in _INTEGER_LIMITS
    try:
        number = int(str(value)) if is_integer else float(str(value))
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        kind = "whole number" if is_integer else "number"
        raise ConfigError(f"`{name}` is {value!r}, but must be a {kind} above 0")
    return number


def _table_attempts(error: Phi3Error) -> int:
    if isinstance(error, DeploymentNotFoundError):
        being_set = TRAFFIC_BEING_SET in (error.detail or "").lower()
        return TRAFFIC_ATTEMPTS if being_set else 1
    if isinstance(error, ScoringFailedError) and error.status is not None and error.status < 500:
        return 1  # 424 around a 4xx, or without a status: the model would refuse it again
    if isinstance(error, ServerError) and error.status in ATTEMPTS_BY_STATUS:
        return ATTEMPTS_BY_STATUS[error.status]
    return ATTEMPTS.get(type(error), 1)


def delay_s(attempt: int, retry_after: float | None = None, limits: Limits = Limits()) -> float:
    """Return the seconds to wait after a failed attempt.

    Args:
        attempt: number of the failed attempt, counted from 1.
        retry_after: seconds of the endpoint's `Retry-After`; used up to `retry_after_max_s`. Jitter is
            only added to it, so that no request comes too early.
        limits: the limits of the call.
    """
    if retry_after is not None:
        wait = min(retry_after, limits.retry_after_max_s)
        return wait * (1 + random.uniform(0, BACKOFF_JITTER))
    doublings = min(attempt - 1, 60)  # a float overflows after many more
    wait = min(limits.backoff_first_s * BACKOFF_FACTOR**doublings, limits.backoff_max_s)
    return wait * (1 + random.uniform(-BACKOFF_JITTER, BACKOFF_JITTER))


class Deadline:
    """The time limit of one call. Another thread may end the call early.

    Args:
        seconds: seconds from now.

    Attributes:
        interrupt: closes the connection of a thread that is sending or reading; None if no thread is.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.monotonic()
        self._interrupt: Callable[[], None] | None = None
        self._cancelled = threading.Event()
        # Held during an interrupt, so that no other call gets the connection meanwhile.
        self._lock = threading.Lock()

    @property
    def interrupt(self) -> Callable[[], None] | None:
        return self._interrupt

    @interrupt.setter
    def interrupt(self, interrupt: Callable[[], None] | None) -> None:
        with self._lock:
            self._interrupt = interrupt
            if interrupt and self._cancelled.is_set():
                interrupt()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed

    def check(self) -> None:
        """Raise EndpointTimeoutError if the time limit has passed or the call was cancelled."""
        if self.left <= 0:
            raise self.error()

    def error(self) -> EndpointTimeoutError:
        """Return the error of a call that did not end in time."""
        if self._cancelled.is_set():
            return EndpointTimeoutError("the call was cancelled", hint="")
        return EndpointTimeoutError(f"no complete answer within {self.seconds:g} s")

    def restart(self) -> None:
        """Count the seconds from now; a call that was cancelled stays cancelled."""
        self.start = time.monotonic()

    def shorten(self, seconds: float) -> None:
        """Reduce the remaining time to this many seconds."""
        self.seconds = min(self.seconds, self.elapsed + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait until the seconds have passed or the call is cancelled."""
        self._cancelled.wait(seconds)

    def cancel(self) -> None:
        """End the call now and close its connection; may be called from any thread."""
        with self._lock:
            self.seconds = 0.0
            self._cancelled.set()
            if self._interrupt:
                self._interrupt()


def next_wait_s(error: Phi3Error, attempt: int, limits: Limits, deadline: Deadline) -> float | None:
    """Return the seconds until the next attempt, or None if there should be no further attempt."""
    if attempt >= limits.attempts_for(error):
        return None
    wait = delay_s(attempt, error.retry_after, limits)
    return wait if wait < deadline.left else None
