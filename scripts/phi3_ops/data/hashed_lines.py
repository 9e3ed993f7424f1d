"""Write a file of lines and hash it at the same time."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

WRITE_BLOCK = 1 << 20  # bytes that are hashed and written at once


class HashedLines:
    """A file of lines that another thread hashes and writes, block by block.

    Use it in a `with` block; `hash` is the SHA-256 of the file when the block has ended.

    Args:
        path: file to write.
        thread: pool of one thread, which keeps the order of the blocks.
    """

    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self.hash = hashlib.sha256()
        self._thread = thread
        self._file = path.open("wb", buffering=0)
        self._lines: list[bytes] = []
        self._size = 0
        self._writing: Future[None] | None = None  # the block that is being written

    def write(self, line: bytes) -> None:
        """Add a line, given without its line end."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > WRITE_BLOCK:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        self._lines.append(b"")  # the line end of the last line
        self._writing = self._thread.submit(self._write, b"\n".join(self._lines))
        self._lines, self._size = [], 0

    def _write(self, block: bytes) -> None:
        self.hash.update(block)
        self._file.write(block)

    def _wait(self) -> None:
        if self._writing:
            self._writing.result()

    def __enter__(self) -> HashedLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines:
            self._flush()
        self._wait()
        self._file.close()
