"""promptflow's thread pools end when they are collected, not when a line ends."""

from __future__ import annotations

import gc
import threading

import pytest


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    if any(not thread.daemon for thread in set(threading.enumerate()) - before):
        gc.collect()
