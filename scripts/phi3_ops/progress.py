"""Progress of long steps: how much is done and the time left, or how long a wait has taken so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .terminal import one_line, print_text

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 5.0  # between two lines of a count
WAIT_LINE_EVERY_S = 60.0  # between two lines of a wait, if the output is not a terminal


def time_text(seconds: float) -> str:
    """Return a duration as people write it: `45 s`, `3 min 20 s` or `1 h 5 min`."""
    whole_seconds = round(seconds)
    minutes, rest = divmod(whole_seconds, 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


class TimeLeft:
    """Estimates the time left from the time since it was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def text(self, done: int, total: int) -> str:
        """Return the end of a line: `, 12 s left`; nothing at the beginning and at the end."""
        if not 0 < done < total:
            return ""
        return f", {time_text(self.elapsed_s * (total - done) / done)} left"


class ProgressLines:
    """Prints how much of a step is done and the time left, on standard error every few seconds.

    Args:
        text: what has been done, for example `downloaded`.
        unit: unit of the numbers.
        scale: what the numbers are divided by, for example 10**6 for bytes in MB.
    """

    def __init__(self, text: str, unit: str, scale: int = 1) -> None:
        self._text, self._unit, self._scale = text, unit, scale
        self._left = TimeLeft()
        self._next_line_s = LINE_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        """Print a line if some seconds have passed since the last one."""
        seconds = self._left.elapsed_s
        if seconds < self._next_line_s:
            return
        self._next_line_s = seconds + LINE_EVERY_S
        counts = f"{done / self._scale:,.0f} of {total / self._scale:,.0f} {self._unit}"
        print_text(f"{self._text} {counts}{self._left.text(done, total)}", to_stderr=True)


class Elapsed:
    """A text for rich's `Status` that ends with the time since it was made.

    Args:
        text: what is being done.
        usual: how long it usually takes, for example `3 to 10 min`; empty if nobody knows.
    """

    def __init__(self, text: str, usual: str = "") -> None:
        self.text, self._usual = text, usual
        self._started = time.monotonic()

    def change(self, text: str) -> None:
        """Replace the text; the time goes on."""
        self.text = text

    def __str__(self) -> str:
        usual = f", usually {self._usual}" if self._usual else ""
        return f"{one_line(self.text)} ({time_text(time.monotonic() - self._started)}{usual})"

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text(str(self))


@contextmanager
def waiting(console: Console, text: str, usual: str = "") -> Iterator[Elapsed]:
    """Show how long the block has taken so far.

    On a terminal this is a line with a spinner; elsewhere a line on standard error each minute.

    Args:
        console: the console of the command.
        text: what the block waits for.
        usual: how long it usually takes, for example `3 to 10 min`; empty if nobody knows.

    Yields:
        The displayed text, which the block can change.
    """
    elapsed = Elapsed(text, usual)
    if console.is_terminal:
        with console.status(elapsed):
            yield elapsed
        return
    ended = threading.Event()
    thread = threading.Thread(target=_print_waits, args=(elapsed, ended), daemon=True)
    thread.start()
    try:
        yield elapsed
    finally:
        ended.set()
        thread.join()


def _print_waits(elapsed: Elapsed, ended: threading.Event) -> None:
    while not ended.wait(WAIT_LINE_EVERY_S):
        print_text(f"  {elapsed} …", to_stderr=True)
