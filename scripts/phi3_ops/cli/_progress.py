"""The progress of a batch on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..progress import time_text
from ..terminal import console, print_text

if TYPE_CHECKING:
    from ..runs import BatchProgress

LINE_EVERY_S = 5.0  # between two lines of progress, if standard error is not a terminal


class ProgressDisplay:
    """Displays the progress of one batch after the other.

    Args:
        bar: rich's `Progress`, or None to print lines.

    Attributes:
        tokens: number of tokens of the batch's answers so far.
    """

    def __init__(self, bar: Any = None) -> None:
        self.tokens = 0
        self._bar = bar
        self._task: Any = None
        self._done = 0
        self._started = time.monotonic()
        self._next_line_s = LINE_EVERY_S

    def __call__(self, progress: BatchProgress) -> None:
        """Display the progress. It is called whenever a line has ended."""
        self.tokens = progress.tokens
        if progress.done < self._done:  # the next batch
            self._started, self._next_line_s = time.monotonic(), LINE_EVERY_S
        self._done = progress.done
        seconds = time.monotonic() - self._started
        rate = progress.done / max(seconds, 1e-9)
        if self._bar is not None:
            self._update_bar(progress, rate)
        elif seconds >= self._next_line_s:
            self._next_line_s = seconds + LINE_EVERY_S
            print_text(_progress_line(progress, rate), to_stderr=True)

    def _update_bar(self, progress: BatchProgress, rate: float) -> None:
        figures = {
            "rate": rate,
            "failed": progress.failed,
            "tokens": progress.tokens,
            "in_flight": progress.in_flight,
        }
        if self._task is None:
            self._task = self._bar.add_task("lines", total=progress.lines, **figures)
        self._bar.update(self._task, completed=progress.done, total=progress.lines, **figures)


def _progress_line(progress: BatchProgress, rate: float) -> str:
    left = time_text((progress.lines - progress.done) / rate)
    return (
        f"{progress.done}/{progress.lines} lines, {rate:.1f} lines/s, {left} left, "
        f"{progress.failed} failed, {progress.tokens:,} tokens, {progress.in_flight} in flight"
    )


@contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """Yield a display for the batches that run inside the block."""
    if not sys.stderr.isatty():
        yield ProgressDisplay()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    screen = console(to_stderr=True)
    if not screen.is_terminal:
        yield ProgressDisplay()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} lines/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TextColumn("{task.fields[in_flight]} in flight"),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        yield ProgressDisplay(bar)
