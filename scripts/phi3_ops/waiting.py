"""Wait for something that takes a while: the one polling loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WaitTimeoutError(Exception, Generic[T]):
    """The awaited state did not come in time.

    Attributes:
        last: the value that was read last.
    """

    def __init__(self, last: T) -> None:
        super().__init__("the awaited state did not come in time")
        self.last = last


def wait_until(
    read: Callable[[], T], accept: Callable[[T], object], *, timeout_s: float, poll_s: float
) -> T:
    """Call `read` until `accept` is true for its value, and return that value.

    Args:
        read: reads the current state; what it raises ends the wait.
        accept: whether a state is the awaited one; what it raises ends the wait as well.
        timeout_s: seconds after which no further attempt is made; there is always a first one.
        poll_s: seconds between two attempts.

    Raises:
        WaitTimeoutError: no accepted value was read in time.
    """
    end = time.monotonic() + timeout_s
    while not accept(value := read()):
        if time.monotonic() > end:
            raise WaitTimeoutError(value)
        time.sleep(poll_s)
    return value
