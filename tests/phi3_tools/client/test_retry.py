"""Waits between attempts, numbers of attempts, and deadlines."""

from __future__ import annotations

import random
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ConfigError,
    ConnectionLostError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    Limits,
    ModelNotReadyError,
    PermissionDeniedError,
    PromptTooLongError,
    RateLimitedError,
    RequestTooLargeError,
    ScoringFailedError,
    ServerError,
    UnexpectedRedirectError,
)
from phi3_tools.client.retry import Deadline, delay_s, next_wait_s

NO_TRAFFIC = "Specified traffic group could not be found."


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (RateLimitedError("", status=429), 8),
        (ModelNotReadyError("", status=424), 8),
        (ServerError("", status=503), 8),
        (ScoringFailedError("", status=503), 3),
        (DeploymentNotFoundError("", status=404, detail=NO_TRAFFIC), 8),
        (EndpointTimeoutError("", status=408), 4),
        (EndpointTimeoutError(""), 4),
        (ConnectionLostError(""), 4),
        (EndpointUnreachableError(""), 3),
        (ServerError("", status=500), 3),
        (ServerError("", status=502), 3),
        (ScoringFailedError("", status=500), 3),
        (ScoringFailedError(""), 3),
        (ScoringFailedError("", status=401), 1),
        (ScoringFailedError("", status=424), 1),
        (DeploymentNotFoundError("", status=404, detail="retired"), 1),
        (DeploymentNotFoundError("", status=404), 1),
        (AuthenticationError("", status=401), 1),
        (PermissionDeniedError("", status=403), 1),
        (RequestTooLargeError("", status=413), 1),
        (BadRequestError("", status=400), 1),
        (UnexpectedRedirectError("", status=302), 1),
        (BadAnswerError(""), 1),
        (ConfigError(""), 1),
        (PromptTooLongError(""), 1),
    ],
    ids=lambda v: f"{type(v).__name__}-{v.status}" if isinstance(v, Exception) else None,
)
def test_attempts(error, attempts):
    assert Limits().attempts_for(error) == attempts
    assert Limits(max_attempts=2).attempts_for(error) == (2 if attempts > 1 else 1)
    assert Limits(max_attempts=1).attempts_for(error) == 1


def test_waits_double_up_to_their_limit(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: 0)
    assert [delay_s(attempt) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    limits = Limits(backoff_first_s=0.1, backoff_max_s=0.3)
    assert [delay_s(attempt, None, limits) for attempt in (1, 2, 3)] == [0.1, 0.2, 0.3]


@given(st.integers(1, 10_000))
def test_jitter_stays_within_a_quarter(attempt):
    full = min(0.5 * 2 ** min(attempt - 1, 10), 8.0)
    assert 0.75 * full <= delay_s(attempt) <= 1.25 * full


@given(st.floats(0, 1e9))
def test_retry_after_is_honoured_and_capped(seconds):
    """Jitter is only added, so that no request comes too early."""
    wanted = min(seconds, 60)
    assert wanted <= delay_s(1, seconds) <= wanted * 1.25
    assert delay_s(1, seconds, Limits(retry_after_max_s=2)) <= 2.5


def test_no_wait_beyond_the_deadline():
    error = RateLimitedError("", status=429, retry_after=30)
    assert next_wait_s(error, 1, Limits(), Deadline(300)) >= 30
    assert next_wait_s(error, 1, Limits(), Deadline(10)) is None
    assert next_wait_s(error, 8, Limits(), Deadline(300)) is None
    assert next_wait_s(BadRequestError("", status=400), 1, Limits(), Deadline(300)) is None


def test_deadline(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    deadline = Deadline(5)
    now[0] = 104.0
    assert (deadline.elapsed, deadline.left) == (4, 1)
    deadline.check()
    deadline.shorten(9)
    assert deadline.left == 1
    deadline.shorten(0.5)
    assert deadline.left == 0.5
    now[0] = 105.0
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 4.5 s"):
        deadline.check()


def test_cancelling_wakes_waiting_threads():
    deadline = Deadline(60)
    woken = []
    deadline.interrupt = lambda: woken.append("reader")
    thread = threading.Thread(target=lambda: (deadline.sleep(60), woken.append("sleeper")))
    thread.start()
    deadline.cancel()
    thread.join(30)
    assert sorted(woken) == ["reader", "sleeper"]
    assert deadline.left <= 0


def test_sleep_waits_for_the_given_seconds(monkeypatch):
    deadline, seconds = Deadline(60), []
    monkeypatch.setattr(deadline._cancelled, "wait", seconds.append)
    deadline.sleep(0.05)
    assert seconds == [0.05]


def test_limits_are_read_from_a_connection():
    values = {"read_timeout_s": "2.5", "max_attempts": "3", "deadline_s": 9, "endpoint": "x"}
    assert Limits.of(values) == Limits(read_timeout_s=2.5, max_attempts=3, deadline_s=9)
    assert Limits.of({"connect_timeout_s": "", "backoff_max_s": None}) == Limits()


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("read_timeout_s", "0", "number"),
        ("connect_timeout_s", "-1", "number"),
        ("deadline_s", "soon", "number"),
        ("deadline_s", "nan", "number"),
        ("backoff_first_s", "inf", "number"),
        ("max_attempts", "2.5", "whole number"),
        ("max_attempts", "0", "whole number"),
        ("max_answer_bytes", "1e6", "whole number"),
    ],
)
def test_wrong_limits_are_refused(name, value, kind):
    with pytest.raises(ConfigError, match=f"`{name}` is '{value}', but must be a {kind} above 0"):
        Limits.of({name: value})


def test_limits_are_checked_at_construction():
    with pytest.raises(ConfigError, match="`deadline_s` is -1"):
        Limits(deadline_s=-1)
