"""The number of lines in flight: all that were asked for, fewer after a 429, never none."""

from __future__ import annotations

import logging

import pytest

from phi3_ops.pf import pace as pace_module
from phi3_ops.pf.pace import CallListener, ConcurrencyLimit, listening
from phi3_tools import RateLimited
from phi3_tools.client.spans import ANSWERED_LOG


def started(pace):
    count = 0
    while pace.start():
        count += 1
    return count


def test_as_many_start_as_were_asked_for():
    assert started(ConcurrencyLimit(7)) == 7


def test_a_429_halves_what_is_in_flight():
    pace = ConcurrencyLimit(64)
    for _ in range(20):
        pace.start()
    pace.throttled()
    assert pace.limit == 10


def test_one_crowd_is_cut_once(monkeypatch):
    pace = ConcurrencyLimit(64)
    started(pace)
    for _ in range(64):
        pace.throttled()
    assert pace.limit == 32
    monkeypatch.setattr(pace_module, "CUT_EVERY_S", 0.0)
    for _ in range(50):
        pace.throttled()
    assert pace.limit == 1 and not pace.start()


def test_what_was_cut_grows_back_by_about_one_a_crowd():
    pace = ConcurrencyLimit(8)
    started(pace)
    pace.throttled()
    while pace.in_flight:
        pace.finish()
    assert pace.limit == 5
    for _ in range(60):
        assert pace.start()
        pace.finish()
    assert pace.limit == 8


def test_a_throttled_line_earns_no_growth():
    pace = ConcurrencyLimit(8)
    started(pace)
    pace.throttled()
    for _ in range(8):
        pace.finish(throttled=True)
    assert pace.limit == 4


def test_nothing_starts_once_it_is_stopped():
    pace = ConcurrencyLimit(8)
    pace.stop()
    assert not pace.start() and pace.in_flight == 0


@pytest.fixture
def log():
    return logging.getLogger("phi3_tools")


def test_the_clients_429_is_heard_and_its_other_errors_are_not(log):
    pace = ConcurrencyLimit(8)
    started(pace)
    with listening(CallListener(pace, lambda tokens: None)):
        log.info("attempt %d: %s; again in %.1f s", 1, "ServerError", 0.5)
        assert pace.limit == 8
        log.info("attempt %d: %s; again in %.1f s", 1, RateLimited.__name__, 0.5)
    assert pace.limit == 4


def test_tokens_are_counted(log):
    counted = []
    with listening(CallListener(ConcurrencyLimit(1), counted.append)):
        log.debug(ANSWERED_LOG, 1, 11, 7)
        log.debug(ANSWERED_LOG, 1, None, 7)
    assert counted == [18, 7]


def test_the_log_is_as_it_was_afterwards(log):
    before = (log.level, log.propagate, list(log.handlers))
    with listening(CallListener(ConcurrencyLimit(1), lambda tokens: None)):
        pass
    assert (log.level, log.propagate, list(log.handlers)) == before
