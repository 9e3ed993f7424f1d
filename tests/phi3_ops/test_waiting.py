"""The polling loop: what it returns, when it gives up, and what ends it."""

from __future__ import annotations

import pytest

from phi3_ops import waiting
from phi3_ops.waiting import WaitTimeoutError, wait_until


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def test_the_accepted_value_is_returned(clock):
    states = iter(["creating", "creating", "ready"])
    state = wait_until(lambda: next(states), "ready".__eq__, timeout_s=60, poll_s=5)
    assert state == "ready"
    assert clock.slept == [5, 5]


def test_an_accepted_first_value_takes_no_wait(clock):
    assert wait_until(lambda: 7, bool, timeout_s=0, poll_s=5) == 7
    assert clock.slept == []


def test_the_last_value_is_in_the_error(clock):
    values = iter(range(100))
    with pytest.raises(WaitTimeoutError) as caught:
        wait_until(lambda: next(values), lambda value: value < 0, timeout_s=10, poll_s=5)
    assert caught.value.last == 3  # read at 0, 5, 10 and 15 seconds
    assert clock.slept == [5, 5, 5]


@pytest.mark.parametrize("where", ["read", "accept"])
def test_an_error_ends_the_wait(clock, where):
    def fail(*_):
        raise ValueError("broken")

    read, accept = (fail, bool) if where == "read" else (lambda: 1, fail)
    with pytest.raises(ValueError, match="broken"):
        wait_until(read, accept, timeout_s=10, poll_s=5)
    assert clock.slept == []
