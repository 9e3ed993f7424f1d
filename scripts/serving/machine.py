"""The cores and the memory that a worker of the scoring script may use."""

from __future__ import annotations

import os

MIB = 2**20
MEMORY_IF_UNKNOWN = 8192 * MIB  # where the system does not report its memory, as on Windows


def worker_count() -> int:
    """Return the number of workers that the server starts. Each one loads the model."""
    return int(os.environ.get("WORKER_COUNT") or 1)


def cores_per_worker() -> int:
    """Return the number of cores that one worker may use, at least 1."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        available = os.cpu_count() or 1
    return max(1, available // worker_count())


def max_cache_bytes(free: int | None = None) -> int:
    """Return the memory in bytes that the keys and values of all running requests may take.

    PHI3_CACHE_MIB overrides it.

    Args:
        free: free memory of the device in bytes; by default this worker's share of half of the
            machine's memory.
    """
    setting = os.environ.get("PHI3_CACHE_MIB")
    if setting:
        return int(setting) * MIB
    if free is not None:
        return free
    try:
        half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        half = MEMORY_IF_UNKNOWN
    return half // worker_count()
