"""Pages of 2 MiB for memory in use: which memory they are used for, and that it keeps its content."""

import ctypes
import mmap
import sys

import huge_pages
import numpy as np
import pytest
from huge_pages import HUGE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these pages")


@pytest.fixture
def memory():
    """Twelve MiB, of which the last four are not in use."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    array = np.frombuffer(mmap.mmap(-1, 6 * HUGE, flags=flags), np.uint8)
    array[: 4 * HUGE] = 7
    return array


def in_ranges(array):
    """Return the bytes of an array that would get large pages."""
    first = array.ctypes.data
    ranges = huge_pages._ranges_in_use(ctypes.CDLL(None))
    parts = [(max(start, first), min(start + size, first + array.nbytes)) for start, size in ranges]
    return sum(max(0, end - start) for start, end in parts)


def test_whole_pages_in_use_are_selected_and_no_others(memory):
    assert 3 * HUGE <= in_ranges(memory[: 4 * HUGE]) <= 4 * HUGE
    assert in_ranges(memory[4 * HUGE :]) == 0


def test_a_page_with_a_gap_is_not_selected(memory):
    old = in_ranges(memory)
    memory.base.obj.madvise(mmap.MADV_DONTNEED, 2 * HUGE, mmap.PAGESIZE)
    assert old - in_ranges(memory) == HUGE


def test_the_memory_keeps_its_content(memory):
    huge_pages.use_huge_pages()
    assert (memory[: 4 * HUGE] == 7).all()
    assert not memory[4 * HUGE :].any()


def test_nothing_happens_on_other_systems(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(huge_pages, "_ranges_in_use", lambda _: pytest.fail("it was called"))
    huge_pages.use_huge_pages()
