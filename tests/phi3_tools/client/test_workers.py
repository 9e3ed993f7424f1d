"""The threads of async calls: they are reused, end when idle, and finish what is waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from async_calls import HANG_S, run
from phi3_tools.client import workers as workers_module
from phi3_tools.client.workers import Workers


def test_workers_are_reused():
    workers = Workers(2)

    async def ask():
        threads = {await workers.run(threading.get_ident) for _ in range(50)}
        many = await asyncio.gather(*(workers.run(lambda: time.sleep(0.01)) for _ in range(20)))
        return threads, many

    threads, many = run(ask())
    # A thread may not be idle again yet when the next call comes, so that there may be two.
    assert len(threads) <= 2
    assert many == [None] * 20
    workers.close()


def test_workers_end_when_idle_and_start_again(monkeypatch):
    monkeypatch.setattr(workers_module, "IDLE_S", 0.05)
    workers = Workers(2)
    assert run(workers.run(lambda: 1)) == 1
    end = time.monotonic() + HANG_S
    while workers._threads:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert run(workers.run(lambda: 7)) == 7
    workers.close()


def test_an_error_of_the_work_reaches_the_caller():
    workers = Workers(1)
    with pytest.raises(ZeroDivisionError):
        run(workers.run(lambda: 1 / 0))
    workers.close()


def test_closed_workers_finish_what_is_waiting():
    workers, go_on, results = Workers(1), threading.Event(), []

    async def ask():
        tasks = [asyncio.create_task(workers.run(lambda: go_on.wait(HANG_S))) for _ in range(3)]
        await asyncio.sleep(0.01)
        workers.close()
        go_on.set()
        results.extend(await asyncio.gather(*tasks))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run, ask()).result(HANG_S)
    assert results == [True] * 3
