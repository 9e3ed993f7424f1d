"""The peak memory of this process and of all processes that it starts."""

from __future__ import annotations

import threading
from types import TracebackType

POLL_S = 0.5


class PeakMemory:
    """Measures the memory of this process and its descendants inside a `with` block.

    The memory of a process is its resident set. Pages that several processes share count several times,
    and a peak between two measurements is missed.

    Attributes:
        peak: largest sum so far, in bytes; 0 if the system does not report it.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="peak memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, _memory_of_this_tree())
            self._ended.wait(POLL_S)
        self.peak = max(self.peak, _memory_of_this_tree())


def _memory_of_this_tree() -> int:
    """Return the resident bytes of this process and its descendants."""
    import psutil

    process, total = psutil.Process(), 0
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.Error:
        processes = [process]
    for member in processes:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # it has ended
            continue
    return total
