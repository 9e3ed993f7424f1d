"""Show what a step is doing while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..progress import Elapsed
from ..terminal import print_text

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def activity(console: Console, text: str, *, every_s: float = 0) -> Iterator[Callable[[str], None]]:
    """Show a text while the block runs: on a terminal with a spinner, elsewhere as a line on stderr.

    Args:
        console: console of the quickstart.
        text: what is being done.
        every_s: seconds between two lines on stderr, for texts that change often.

    Yields:
        A function that replaces the text.
    """
    if console.is_terminal:
        elapsed = Elapsed(text)
        with console.status(elapsed):
            yield elapsed.change
        return
    last_line, next_line_s = "", 0.0

    def show(line: str) -> None:
        nonlocal last_line, next_line_s
        if line != last_line and time.monotonic() >= next_line_s and not console.quiet:
            last_line, next_line_s = line, time.monotonic() + every_s
            print_text(f"      {line} …", to_stderr=True)

    show(text)
    yield show
