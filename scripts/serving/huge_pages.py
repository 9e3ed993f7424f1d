"""Pages of 2 MiB for memory that is in use, on Linux.

Each step of an answer reads all weights. With pages of 4 KiB, the processor spends a part of that time
on the translation of addresses. Linux by default uses larger pages only where a program asks for them,
and the runtime that allocates the weights does not ask.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterator

import numpy as np

HUGE = 2**21  # bytes
COLLAPSE = 25  # MADV_COLLAPSE ("madvise(2)"), from Linux 6.1; other versions refuse it
# Private memory that can be written, and that is not a file: 7f00-7f80 rw-p 00000000 00:00 0 [heap]
MAPPING = re.compile(r"(\w+)-(\w+) rw-p \w+ 00:00 0 *(\[heap\])?\n")


def use_huge_pages() -> None:
    """Move this process's memory to pages of 2 MiB, where all of such a page is in use.

    The process therefore does not take more memory. On other systems, nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for start, size in _ranges_in_use(libc):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), COLLAPSE)


def _ranges_in_use(libc: ctypes.CDLL) -> Iterator[tuple[int, int]]:
    """Yield the address and the size of ranges of whole huge pages that are in use."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        mappings = [match for line in file if (match := MAPPING.fullmatch(line))]
    for match in mappings:
        start, end = (int(match[group], 16) for group in (1, 2))
        start = -(-start // HUGE) * HUGE
        pages = (end // HUGE * HUGE - start) // mmap.PAGESIZE
        if pages <= 0:
            continue
        resident = np.zeros(pages, np.uint8)
        size = ctypes.c_size_t(pages * mmap.PAGESIZE)
        if libc.mincore(ctypes.c_void_p(start), size, resident.ctypes.data_as(ctypes.c_void_p)):
            continue  # the memory has been given back meanwhile
        in_use = (resident & 1).reshape(-1, HUGE // mmap.PAGESIZE).all(1)
        edges = np.flatnonzero(np.diff(in_use, prepend=False, append=False))
        for first, last in edges.reshape(-1, 2).tolist():
            yield start + first * HUGE, (last - first) * HUGE
