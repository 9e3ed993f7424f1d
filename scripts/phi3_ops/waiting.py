"""Wait until a state is reached: the only polling loop of this package."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WaitTimeoutError(Exception, Generic[T]):
    """The awaited state was not reached in time.

    Attributes:
        last: the last value that was read.
    """

    def __init__(self, last: T) -> None:
        super().__init__("the awaited state was not reached in time")
        self.last = last


def wait_until(
    read: Callable[[], T], accept: Callable[[T], object], *, timeout_s: float, poll_s: float
) -> T:
    """Call `read` until `accept` is true for its value, and return that value.

    Args:
        read: returns the current state; its errors end the wait.
        accept: returns whether a state is the awaited one; its errors end the wait.
        timeout_s: seconds after which no further attempt is made; the first attempt is always made.
        poll_s: seconds between two attempts.

    Raises:
        WaitTimeoutError: no accepted value was read in time; the error has the last one.
    """
    end = time.monotonic() + timeout_s
    while not accept(value := read()):
        if time.monotonic() > end:
            raise WaitTimeoutError(value)
        time.sleep(poll_s)
    return value
