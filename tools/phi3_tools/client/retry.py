"""How long to wait and how often to try: every number of the client, in one place.

A scoring request is safe to repeat: it changes nothing at the endpoint, a second answer only costs
its tokens. So a request that may already have been processed (a lost connection, a time limit) is
sent again like any other. What is repeated follows the table of Microsoft's batch-scoring client:
408, 429 and 503; 404 while traffic is being set; 424 by what is inside it; other server errors, and
an error that came as a success, at most three times; nothing else.
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
# Prompt flow gives a line 600 s and loses the whole asynchronous run when a line takes longer.
DEADLINE_S = 300.0
BACKOFF_FIRST_S = 0.5
BACKOFF_FACTOR = 2.0
BACKOFF_MAX_S = 8.0
BACKOFF_JITTER = 0.25  # of the wait, either way
RETRY_AFTER_MAX_S = 60.0
MAX_ANSWER_BYTES = 32 * 2**20

# Attempts in all, the first one included. What is not here is tried once.
ATTEMPTS: dict[type[Phi3Error], int] = {
    RateLimitedError: 8,
    ModelNotReadyError: 8,
    EndpointTimeoutError: 4,
    ConnectionLostError: 4,
    EndpointUnreachableError: 3,
    ScoringFailedError: 3,
    ServerError: 3,
}
# Statuses whose number differs from their class's.
ATTEMPTS_BY_STATUS = {503: 8}
TRAFFIC_BEING_SET = "specified traffic group could not be found"
TRAFFIC_ATTEMPTS = 8
_WHOLE = ("max_attempts", "max_answer_bytes")


@dataclass(frozen=True)
class Limits:
    """The client's limits; the defaults are this module's constants.

    Attributes:
        connect_timeout_s: seconds to reach the endpoint, for each attempt.
        read_timeout_s: seconds of silence before an attempt is given up.
        deadline_s: seconds for the whole call: all attempts, the waits between them, and for a stream
            the time that its reader takes.
        max_attempts: attempts in all for whatever is worth repeating; None takes `ATTEMPTS`.
        max_answer_bytes: an answer longer than this is refused.
        backoff_first_s: seconds to wait after the first failed attempt; doubles with each.
        backoff_max_s: seconds to wait at most, where the endpoint names no time itself.
        retry_after_max_s: seconds that the endpoint's `Retry-After` may ask for.

    Raises:
        ConfigError: a value is no positive number.
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
        """Limits from texts or numbers under the attributes' names; other names are ignored.

        Raises:
            ConfigError: a value is no positive number.
        """
        given = {item.name: values.get(item.name) for item in fields(cls)}
        return cls(**{n: _positive(n, v) for n, v in given.items() if v not in (None, "")})

    def attempts_for(self, error: Phi3Error) -> int:
        """How often a request that met this error may be sent in all."""
        attempts = _table_attempts(error)
        return self.max_attempts if self.max_attempts and attempts > 1 else attempts


def _positive(name: str, value: object) -> Any:
    """The value as a number, whole where the name is one of `_WHOLE`."""
    whole = name in _WHOLE
    try:
        number = int(str(value)) if whole else float(str(value))
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"`{name}` is {value!r}, but must be a {kind} above 0")
    return number


def _table_attempts(error: Phi3Error) -> int:
    if isinstance(error, DeploymentNotFoundError):
        being_set = TRAFFIC_BEING_SET in (error.detail or "").lower()
        return TRAFFIC_ATTEMPTS if being_set else 1
    if isinstance(error, ScoringFailedError) and error.status is not None and error.status < 500:
        return 1  # 424 around a refusal, or around nothing: it would only be refused again
    if isinstance(error, ServerError) and error.status in ATTEMPTS_BY_STATUS:
        return ATTEMPTS_BY_STATUS[error.status]
    return ATTEMPTS.get(type(error), 1)


def delay_s(attempt: int, retry_after: float | None = None, limits: Limits = Limits()) -> float:
    """Seconds to wait after a failed attempt (counted from 1).

    The endpoint's `Retry-After` is honoured up to `retry_after_max_s`; jitter is only added to it,
    so that nobody comes back early.
    """
    if retry_after is not None:
        wait = min(retry_after, limits.retry_after_max_s)
        return wait * (1 + random.uniform(0, BACKOFF_JITTER))
    doublings = min(attempt - 1, 60)  # beyond, a float overflows
    wait = min(limits.backoff_first_s * BACKOFF_FACTOR**doublings, limits.backoff_max_s)
    return wait * (1 + random.uniform(-BACKOFF_JITTER, BACKOFF_JITTER))


class Deadline:
    """The end of one call, which another thread may bring about early.

    Args:
        seconds: from now.

    Attributes:
        interrupt: wakes whoever waits for the endpoint; set while somebody does.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.monotonic()
        self.interrupt: Callable[[], None] | None = None
        self._cancelled = threading.Event()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed

    def check(self) -> None:
        """Raises EndpointTimeoutError once the end is past."""
        if self.left <= 0:
            raise EndpointTimeoutError(f"no whole answer within {self.seconds:g} s")

    def shorten(self, seconds: float) -> None:
        """Let no more than these seconds pass from now."""
        self.seconds = min(self.seconds, self.elapsed + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call is cancelled."""
        self._cancelled.wait(seconds)

    def cancel(self) -> None:
        """End the call now, from any thread."""
        self.seconds = 0.0
        self._cancelled.set()
        if self.interrupt:
            self.interrupt()


def next_wait_s(error: Phi3Error, attempt: int, limits: Limits, deadline: Deadline) -> float | None:
    """Seconds until the next attempt, or None when there is to be none."""
    if attempt >= limits.attempts_for(error):
        return None
    wait = delay_s(attempt, error.retry_after, limits)
    return wait if wait < deadline.left else None
