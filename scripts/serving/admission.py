"""How much memory the keys and values of rows take. The engine starts a row only if it fits.

A row without a limit of its own could become as long as the context window, but most answers are short.
Its length is therefore planned in steps: 512 tokens, then 4, 16, ... times as many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from batching import Batch, Cache
from generation import Row

SHORTEST_CACHE = 512  # tokens


@dataclass(frozen=True)
class NewRow:
    """A row that is about to start.

    Attributes:
        row: the row.
        known: a cache that contains the first tokens of its prompt in its first slot, and their
            number; None if all tokens are to be run.
    """

    row: Row
    known: tuple[Cache, int] | None

    @property
    def count(self) -> int:
        """The number of tokens that are to be run."""
        return len(self.row.tokens) - (self.known[1] if self.known else 0)


def planned_length(row: Row, window: int) -> int:
    """Return the length in tokens that a row's cache is planned for.

    Args:
        row: the row.
        window: the model's context window in tokens.
    """
    length = SHORTEST_CACHE
    needed = row.length_to_plan
    while length < needed:
        length *= 4
    return min(length, max(window, needed))


def reserved_tokens(row: Row, window: int) -> int:
    """Return the number of tokens that a backend with pages keeps free for a row."""
    return min(planned_length(row, window), row.max_length)


def paged_tokens(rows: Iterable[Row]) -> int:
    """Return the number of tokens that are reserved for rows that have started."""
    return sum(row.reserved for row in rows)


def slot_tokens(
    batches: Collection[Batch], batch: Batch, new_rows: int, prompts: Sequence[Row], chunk: int
) -> int:
    """Return the size of all caches in tokens, where each slot takes the length of its batch.

    Args:
        batches: all batches.
        batch: the batch that the new rows belong to.
        new_rows: number of new rows.
        prompts: rows whose prompts are run in a cache of their own if they are long.
        chunk: number of tokens of the longest prompt that is not long.
    """
    others = sum(item.slots * item.length for item in batches if item is not batch)
    lengths = [len(row.tokens) for row in prompts]
    prefills = sum(length for length in lengths if length > chunk)
    return others + batch.slots_with(new_rows) * batch.length + prefills
