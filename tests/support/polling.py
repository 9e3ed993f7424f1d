"""Wait for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMEOUT_S = 60.0
POLL_S = 0.02


def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return as soon as a condition is true.

    Raises:
        AssertionError: it did not become true in time.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"the condition did not become true in {timeout_s:g} seconds"
        time.sleep(POLL_S)
