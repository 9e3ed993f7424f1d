"""The cores and the memory that a worker of the scoring script may use."""

from __future__ import annotations

import ctypes
import os
import sys

import cgroup

MIB = 2**20
MEMORY_IF_UNKNOWN = 16384 * MIB  # where the system does not report its memory, as on Windows
COUNTS = ("PHI3_CACHE_MIB", "PHI3_THREADS", "WORKER_COUNT")


def check_settings() -> None:
    """Raise ValueError if an environment variable of this module is invalid."""
    for name in COUNTS:
        read_count(name)


def read_count(name: str) -> int | None:
    """Return the value of an environment variable, None if it is empty or not set.

    Raises:
        ValueError: the value is not an integer of at least 1.
    """
    text = os.environ.get(name)
    if not text:
        return None
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be an integer of at least 1, not {text}")
    return count


def worker_count() -> int:
    """Return the number of workers that the server starts. Each one loads the model."""
    return read_count("WORKER_COUNT") or 1


def cores_per_worker() -> int:
    """Return the number of cores that one worker may use, at least 1.

    A container may have less time than its cores have. More threads would then wait for each other.
    """
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        available = os.cpu_count() or 1
    if limit := cgroup.core_limit():
        available = min(available, int(limit))
    return max(1, available // worker_count())


def max_cache_bytes(free: int | None = None) -> int:
    """Return the memory in bytes that the keys and values of a worker's running requests may take.

    PHI3_CACHE_MIB overrides it.

    Args:
        free: free memory of the device in bytes, which all workers share; by default half of the
            memory of the machine, or of the container.
    """
    if setting := read_count("PHI3_CACHE_MIB"):
        return setting * MIB
    return (_memory() // 2 if free is None else free) // worker_count()


def _memory() -> int:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = MEMORY_IF_UNKNOWN
    return min(memory, cgroup.memory_limit() or memory)


def release_heap() -> None:
    """Give the memory that was freed back to the system, where the C library is able to (glibc)."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
