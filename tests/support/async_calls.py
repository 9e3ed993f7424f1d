"""Async calls of the client, and servers that never end their answer."""

from __future__ import annotations

import asyncio

import pytest

HANG_S = 30


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


def endless(x):
    x.begin_events()
    x.event(delta("Bill"))
    x.until_client_leaves()


def silent(x):
    x.until_client_leaves()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, HANG_S))


async def cancelled(task, server, number=1):
    """Cancel a task after its request has arrived."""
    while len(server.requests) < number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
