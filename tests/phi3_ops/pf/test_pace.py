"""The number of lines in flight: what the user set, fewer after a 429, never none."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from echo_endpoint import KEY
from phi3_ops.pf import pace
from phi3_ops.pf.pace import BatchCallObserver, ConcurrencyLimit
from phi3_tools import BadRequestError, Limits, Phi3Client, RateLimitedError, Reply, Usage
from phi3_tools.client import observe_calls
from slow_endpoint import slow_endpoint


def start_all(limit):
    """Start lines until the limit is reached, and return their number."""
    count = 0
    while limit.start():
        count += 1
    return count


def test_as_many_lines_start_as_the_user_set():
    assert start_all(ConcurrencyLimit(7)) == 7


def test_a_429_halves_what_is_in_flight():
    limit = ConcurrencyLimit(64)
    for _ in range(20):
        limit.start()
    limit.throttle()
    assert limit.limit == 10


def test_429s_at_the_same_time_cut_once(monkeypatch):
    limit = ConcurrencyLimit(64)
    start_all(limit)
    for _ in range(64):
        limit.throttle()
    assert limit.limit == 32
    monkeypatch.setattr(pace, "CUT_EVERY_S", 0.0)
    for _ in range(50):
        limit.throttle()
    assert limit.limit == 1 and not limit.start()


def test_the_limit_grows_by_about_one_when_all_lines_have_ended():
    limit = ConcurrencyLimit(8)
    start_all(limit)
    limit.throttle()
    while limit.in_flight:
        limit.finish()
    assert limit.limit == 5
    for _ in range(60):
        assert limit.start()
        limit.finish()
    assert limit.limit == 8


def test_a_throttled_line_does_not_raise_the_limit():
    limit = ConcurrencyLimit(8)
    start_all(limit)
    limit.throttle()
    for _ in range(8):
        limit.finish(throttled=True)
    assert limit.limit == 4


def test_no_line_starts_after_a_stop():
    limit = ConcurrencyLimit(8)
    limit.stop()
    assert not limit.start() and limit.in_flight == 0


def test_a_429_lowers_the_limit():
    limit = ConcurrencyLimit(8)
    start_all(limit)
    BatchCallObserver(limit, lambda tokens: None).on_throttled(RateLimitedError("", status=429))
    assert limit.limit == 4


def test_the_tokens_of_answers_are_counted():
    counted = []
    observer = BatchCallObserver(ConcurrencyLimit(1), counted.append)
    for usage in (Usage(11, 7), None, Usage(1, 1)):
        observer.on_answered(Reply("", usage=usage))
    assert counted == [18, 2]


@pytest.mark.parametrize(
    ("capacity", "question", "error", "limit_after", "tokens"),
    [
        (0, "x", RateLimitedError, 4, []),
        (None, "fail", BadRequestError, 8, []),  # another error
        (None, "x", None, 8, [18]),
    ],
)
def test_the_client_reports_its_429s_and_answers(capacity, question, error, limit_after, tokens):
    limit, counted = ConcurrencyLimit(8), []
    start_all(limit)
    with slow_endpoint(0.0, capacity) as server:
        fields = {"endpoint": server.url, "contract": "chat", "key": KEY}
        client = Phi3Client.from_connection(fields, limits=Limits(max_attempts=1))
        expected = pytest.raises(error) if error else nullcontext()
        with client, observe_calls(BatchCallObserver(limit, counted.append)), expected:
            client.chat(question)
    assert (limit.limit, counted) == (limit_after, tokens)
