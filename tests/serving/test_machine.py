"""The cores and the memory of one worker."""

import os
import sys

import cgroup
import machine
import pytest

from memory import resident_bytes

MIB = 2**20


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in machine.COUNTS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    """Sets the limits of the container; by default it has none."""

    def set_limits(memory=None, cores=None):
        monkeypatch.setattr(cgroup, "memory_limit", lambda: memory)
        monkeypatch.setattr(cgroup, "core_limit", lambda: cores)

    set_limits()
    return set_limits


@pytest.mark.parametrize(
    ("workers", "cores"), [(None, 8), ("", 8), ("1", 8), ("2", 4), ("3", 2), ("16", 1)]
)
def test_workers_share_the_cores(monkeypatch, workers, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if workers is not None:
        monkeypatch.setenv("WORKER_COUNT", workers)
    assert machine.cores_per_worker() == cores


@pytest.mark.parametrize(("limit_of_cores", "cores"), [(0.5, 1), (2.9, 2), (99, 8), (None, 8)])
def test_a_container_can_have_fewer_cores(monkeypatch, limit, limit_of_cores, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    limit(cores=limit_of_cores)
    assert machine.cores_per_worker() == cores


def test_the_cores_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores_per_worker() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores_per_worker() == 1


@pytest.mark.parametrize(("workers", "share"), [("1", 512), ("2", 256)])
def test_caches_take_half_of_the_memory_shared_by_the_workers(monkeypatch, workers, share):
    values = {"SC_PHYS_PAGES": 1024, "SC_PAGE_SIZE": MIB}
    monkeypatch.setattr(os, "sysconf", values.__getitem__, raising=False)
    monkeypatch.setenv("WORKER_COUNT", workers)
    assert machine.max_cache_bytes() == share * MIB


@pytest.mark.parametrize(("memory", "half"), [(100, 50), (9999, 512)])
def test_a_container_can_have_less_memory(monkeypatch, limit, memory, half):
    values = {"SC_PHYS_PAGES": 1024, "SC_PAGE_SIZE": MIB}
    monkeypatch.setattr(os, "sysconf", values.__getitem__, raising=False)
    limit(memory=memory * MIB)
    assert machine.max_cache_bytes() == half * MIB


def test_the_workers_share_the_free_memory_of_a_device(monkeypatch):
    assert machine.max_cache_bytes(free=123) == 123
    monkeypatch.setenv("WORKER_COUNT", "2")
    assert machine.max_cache_bytes(free=123) == 61
    assert machine.max_cache_bytes(free=0) == 0


def test_a_setting_overrides_both(monkeypatch):
    monkeypatch.setenv("PHI3_CACHE_MIB", "64")
    monkeypatch.setenv("WORKER_COUNT", "2")
    assert machine.max_cache_bytes() == machine.max_cache_bytes(free=1) == 64 * MIB


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_memory_that_the_system_does_not_report_has_a_default(monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(os, "sysconf", fail, raising=False)
    assert machine.max_cache_bytes() == 8192 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is able to")
def test_freed_memory_is_given_back():
    blocks = [bytearray(50_000) for _ in range(2_000)]  # too small for a mapping of their own
    last = bytearray(50_000)
    old = resident_bytes()
    blocks.clear()
    machine.release_heap()
    assert old - resident_bytes() > 50_000_000
    assert len(last) == 50_000
