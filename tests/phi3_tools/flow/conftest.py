"""promptflow's thread pools end when they are collected, not when a line ends."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
