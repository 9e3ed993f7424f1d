"""What this machine gives the scoring code: cores and memory."""

from __future__ import annotations

import os

MIB = 2**20


def cores() -> int:
    """The cores of one worker: the server starts WORKER_COUNT of them, each with its own model."""
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, available // int(os.environ.get("WORKER_COUNT") or 1))


def cache_bytes(free: int | None = None) -> int:
    """What the keys and values of all requests in flight may take, in bytes.

    free: of the device's memory; by default half of this machine's. PHI3_CACHE_MIB overrules both.
    """
    given = os.environ.get("PHI3_CACHE_MIB")
    if given:
        return int(given) * MIB
    if free is None:
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (AttributeError, ValueError, OSError):  # Windows
            free = 8192 * MIB
        free //= int(os.environ.get("WORKER_COUNT") or 1)
    return free
