"""How a request's thread waits for its rows, and gives them up when its client has gone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import wait
from typing import Any, Generic, TypeVar

from generation import Completion, Row

ABANDONED_POLL_S = 0.25  # between two questions whether anybody waits for an answer

IsAbandoned = Callable[[], bool]
Item = TypeVar("Item")


class Stream(Generic[Item], Iterator[Item]):
    """The items of a generator, with a function that is called when the stream ends.

    `on_end` is called after the last item, after an error, and when the stream is closed, even if no
    item was read. A generator's own `finally` does not run if the generator is closed before it starts.

    Args:
        items: the generator. Its return value is that of the last `StopIteration`.
        on_end: function that can be called several times.
    """

    def __init__(self, items: Generator[Item, None, Any], on_end: Callable[[], None]):
        self._items = items
        self._on_end = on_end

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except BaseException:
            self._on_end()
            raise

    def close(self) -> None:
        """End the stream. No more items follow."""
        self._on_end()
        self._items.close()


def read_pieces(
    row: Row,
    pieces: queue.SimpleQueue[str | None],
    is_abandoned: IsAbandoned | None,
    cancel: Callable[[], None],
) -> Generator[str, None, Completion]:
    """Yield the pieces of a row's text, and return its completion.

    Args:
        row: the row.
        pieces: receives the pieces, and None when the row has ended.
        is_abandoned: returns whether nobody waits for the text any more.
        cancel: ends the row soon.
    """
    timeout = None if is_abandoned is None else ABANDONED_POLL_S
    while True:
        if is_abandoned is not None and is_abandoned():
            cancel()
        try:
            piece = pieces.get(timeout=timeout)
        except queue.Empty:
            continue
        if piece is None:
            return row.completion.result()
        yield piece


def cancel_if_abandoned(
    rows: Sequence[Row], is_abandoned: IsAbandoned, cancel: Callable[[], None]
) -> None:
    """Wait until all rows have ended, and call `cancel` as soon as they are abandoned."""
    completions = [row.completion for row in rows]
    while wait(completions, ABANDONED_POLL_S).not_done:
        if is_abandoned():
            cancel()
            return
