"""Show what a step is doing while it waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..terminal import print_text

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def activity(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show a text while the block runs: on a terminal with a spinner, elsewhere as a line on stderr.

    Args:
        console: console of the quickstart.
        text: what is being done.

    Yields:
        A function that replaces the text.
    """
    if console.is_terminal:
        with console.status(text) as status:
            yield status.update
        return
    shown = ""

    def show(line: str) -> None:
        nonlocal shown
        if line != shown and not console.quiet:
            shown = line
            print_text(f"      {line} …", to_stderr=True)

    show(text)
    yield show
