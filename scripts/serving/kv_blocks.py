"""Memory for keys and values, in blocks that rows share.

All rows take their blocks from one pool. A block that several rows contain, such as a part of a common
system message, exists once. A row that writes to a shared block gets a copy of it first.
"""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from openvino_runtime import openvino as ov


class BlockFormat:
    """The format of one layer's keys or values in blocks.

    Attributes:
        name: name of the graph's input.
        type: type of the elements.
        shape: shape of a block: heads, tokens, head size.
        length: number of tokens of a block.
        size: bytes of a block.
    """

    def __init__(self, graph_input: Any):
        self.name: str = graph_input.any_name
        self.type = graph_input.element_type
        _, *shape = graph_input.partial_shape
        self.shape = [dimension.get_length() for dimension in shape]
        self.length = self.shape[1]
        self.size = int(np.prod(self.shape)) * self.type.bitwidth // 8


class BlockPool:
    """Blocks of all layers, and how many rows contain each of them.

    Args:
        formats: format of each layer's keys and of its values.
        capacity: number of blocks to begin with, at least 1. The pool grows if more are taken.
    """

    def __init__(self, formats: Sequence[BlockFormat], capacity: int):
        self.length = formats[0].length
        self._formats = formats
        self._memories: list[mmap.mmap] = []  # by layer, keys and values
        self._arrays: list[np.ndarray] = []  # the same memory
        self._uses: list[int] = []  # by block
        # A heap: the lowest blocks are used first, so that few blocks take memory.
        self._free: list[int] = []
        self._is_bound = False
        self._grow(capacity)

    def bind(self, request: Any) -> None:
        """Let an inference request read and write the blocks."""
        if self._is_bound:
            return
        for item, array in zip(self._formats, self._arrays):
            tensor = ov.Tensor(array, [len(array), *item.shape], item.type)
            request.set_tensor(item.name, tensor)
        self._is_bound = True

    def blocks_for(self, tokens: int) -> int:
        """Return the number of blocks that so many tokens need."""
        return -(-tokens // self.length)

    def share(self, table: Sequence[int], tokens: int) -> list[int]:
        """Return the blocks of a new row that starts with the first tokens of another row.

        The new row shares the full blocks, and has a copy of the last one if it is not full.
        """
        full, rest = divmod(tokens, self.length)
        shared = list(table[:full])
        for block in shared:
            self._uses[block] += 1
        return [*shared, self._copy(table[full])] if rest else shared

    def prepare(self, table: list[int], start: int, end: int) -> None:
        """Change a row's blocks so that the tokens from `start` to `end` can be written to them."""
        first = start // self.length
        for index in range(first, len(table)):
            if self._uses[table[index]] > 1:
                keeps_tokens = index == first and start % self.length > 0
                replacement = self._copy(table[index]) if keeps_tokens else self._take()
                self.release(table[index : index + 1])
                table[index] = replacement
        while len(table) < self.blocks_for(end):
            table.append(self._take())

    def release(self, table: Sequence[int]) -> None:
        """Give back the blocks of a row."""
        for block in table:
            self._uses[block] -= 1
            if not self._uses[block]:
                heapq.heappush(self._free, block)

    def release_memory(self) -> None:
        """Give the memory of the blocks that no row contains back to the system."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows
            return
        unused = [not uses for uses in self._uses]
        edges = np.flatnonzero(np.diff(unused, prepend=False, append=False)).reshape(-1, 2)
        for memory, item in zip(self._memories, self._formats):
            for first, end in (edges * item.size).tolist():
                start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
                size = end // mmap.PAGESIZE * mmap.PAGESIZE - start
                if size > 0:
                    memory.madvise(mmap.MADV_DONTNEED, start, size)

    def _take(self) -> int:
        if not self._free:
            self._grow(len(self._uses))
        block = heapq.heappop(self._free)
        self._uses[block] = 1
        return block

    def _copy(self, block: int) -> int:
        copy = self._take()
        for array in self._arrays:
            array[copy] = array[block]
        return copy

    def _grow(self, count: int) -> None:
        """Add blocks. They take part of the machine's memory only when they are written to."""
        old = len(self._uses)
        used = [block for block, uses in enumerate(self._uses) if uses]
        for layer, item in enumerate(self._formats):
            memory = _reserve((old + count) * item.size)
            array = np.frombuffer(memory, np.uint8).reshape(-1, item.size)
            if old:
                array[used] = self._arrays[layer][used]
                self._arrays[layer], self._memories[layer] = array, memory
            else:
                self._arrays.append(array)
                self._memories.append(memory)
        self._uses += [0] * count
        self._free += range(old, old + count)
        heapq.heapify(self._free)
        self._is_bound = False


def _reserve(size: int) -> mmap.mmap:
    """Return zeros that take no memory before they are written to, 4 KiB at a time.

    Those of NumPy take 2 MiB at a time, or all of their memory if it was in use before.
    """
    # Windows has no flags, and shares such memory with nobody.
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return mmap.mmap(-1, size, **flags)
