"""Stop a batch whose calls all fail with the same error, if no retry can mend that error."""

from __future__ import annotations

import threading
from collections import Counter

from phi3_tools import (
    AuthenticationError,
    DeploymentNotFoundError,
    EndpointUnreachableError,
    PermissionDeniedError,
    Phi3Error,
    UnexpectedRedirectError,
)
from phi3_tools.client import CallObserver

from ..pf import ConcurrencyLimit

MAX_FAILURES = 10  # equal failures without a completed line between them
LASTING_ERRORS = (  # the same request fails again until the user changes something
    AuthenticationError,
    PermissionDeniedError,
    DeploymentNotFoundError,
    EndpointUnreachableError,
    UnexpectedRedirectError,
)


def is_lasting(message: str | None) -> bool:
    """Return whether the error message of a failed line is of one of the `LASTING_ERRORS`."""
    return (message or "").partition(":")[0] in {error.__name__ for error in LASTING_ERRORS}


class RepeatedFailures(CallObserver):
    """Counts equal failures of a batch's calls, and stops the batch after `MAX_FAILURES`.

    Every engine reports to it: the client reports each failed call, the engine each line that has ended.

    Args:
        limit: stopped after `MAX_FAILURES` equal failures.

    Attributes:
        error: the error that stopped the batch, or None.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.error: Phi3Error | None = None
        self._limit = limit
        self._counts: Counter[tuple[type[Phi3Error], int | None, str]] = Counter()
        self._lock = threading.Lock()

    def on_failed(self, error: Phi3Error) -> None:
        if not isinstance(error, LASTING_ERRORS):
            return
        cause = (type(error), error.status, error.message)
        with self._lock:
            self._counts[cause] += 1
            if self._counts[cause] >= MAX_FAILURES and not self._limit.stopped:
                self.error = error
                self._limit.stop()

    def on_line(self, completed: bool) -> None:
        """Note that a line has ended; a completed line starts the count anew."""
        if completed:
            with self._lock:
                self._counts.clear()
