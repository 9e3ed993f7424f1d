"""Batches of rows that go through the model together, and the interface of the model's backends.

A backend runs tokens through a model and nothing else. The two backends are `engine_openvino.py` and
`engine_transformers.py`. `engine.py` decides which rows join which batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from constraints import GrammarCompiler
from generation import Row


class Logits(Protocol):
    """The model's predictions of the next token, for some rows."""

    def best(self, allowed: Mapping[int, np.ndarray]) -> list[int]:
        """Return the most likely token of each row.

        Args:
            allowed: by the index of a row, whether each token can be chosen. In the other rows, all can.
        """

    def after(self, rows: int) -> Logits:
        """Return the predictions for all rows but the first ones."""

    def row(self, index: int) -> np.ndarray:
        """Return the logits of one row: float32, one value per token of the vocabulary."""


class Cache(Protocol):
    """Keys and values of a fixed number of rows. Each slot has room for a fixed number of tokens."""

    def forward(
        self,
        slot: int,
        tokens: Sequence[Sequence[int]],
        past: Sequence[int],
        guest: Piece | None = None,
    ) -> Logits:
        """Run new tokens through the model, for the rows in slot, slot + 1, and so on.

        Args:
            slot: slot of the first row.
            tokens: new tokens of each row. Unless the backend is paged, their number may differ
                between rows only where no row has earlier tokens.
            past: number of tokens that each row has in the cache already.
            guest: tokens of one more row, which go through the model in the same pass. For paged
                backends only.

        Returns:
            The logits that follow the last token of each row. The guest's are the last ones.
        """

    def copy(self, source: Cache, from_slot: int, slot: int, length: int) -> None:
        """Copy the first `length` tokens of a slot of another cache into a slot of this one."""

    def release(self, slot: int) -> None:
        """Give back the memory of a slot whose row has ended, if it can be given back."""


Keep = Callable[[Sequence[int], Cache, int, Hashable], None]


@dataclass(frozen=True)
class Piece:
    """Tokens of a row that is alone in its cache.

    Attributes:
        cache: the cache. The row is in its first slot.
        tokens: new tokens of the row.
        past: number of tokens that the row has in the cache already.
    """

    cache: Any
    tokens: Sequence[int]
    past: int


class Backend(Protocol):
    """A model and its tokenizer.

    Attributes:
        context_window: tokens of a prompt and its answer together.
        vocabulary_size: number of tokens that the model knows.
        end_tokens: tokens that end an answer.
        pad_token: token that fills shorter rows of a batch.
        max_rows: rows that are generated at once.
        prefill_chunk: prompt tokens that are run between two tokens of the running rows.
        start_tokens: prompt tokens that are run in one pass if they are of several rows.
        is_paged: whether rows take memory in pages. Then the rows of a pass can have any numbers of new
            and of earlier tokens.
        bytes_per_token: memory that one token takes in a cache.
        max_cache_bytes: memory that all caches together may take.
        grammars: compiles the grammars of answers for this model's tokens.
        tool_format: the model's format of tools, see `tool_format.template_format`.
    """

    context_window: int
    vocabulary_size: int
    end_tokens: frozenset[int]
    pad_token: int
    max_rows: int
    prefill_chunk: int
    start_tokens: int
    is_paged: bool
    bytes_per_token: int
    max_cache_bytes: int
    grammars: GrammarCompiler
    tool_format: str

    def render(self, messages: Sequence[dict[str, str]]) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def rotary_key(self, length: int) -> Hashable:
        """Return a key of the rotary factors that a row of this length is computed with.

        Only rows with equal keys can share a forward pass.
        """

    def make_cache(self, slots: int, length: int) -> Cache:
        """Create a cache with so many slots of so many tokens each."""

    def release_memory(self) -> None:
        """Give memory that is not in use back to the system. Called when no row is running."""


class Batch:
    """Rows that go through the model together, each in a slot of one cache.

    The first slots are in use, without gaps. Rows of very different lengths are in different
    batches, because every slot of a cache takes the memory of the longest row, unless the backend is
    paged.

    Args:
        backend: the model.
        length: length of each slot in tokens.
        rotary_key: key of the rotary factors of all rows.
        keep: called with tokens, the cache, the slot that contains them and the rotary key, when a
            prompt has been run and when a row has ended.
    """

    def __init__(
        self, backend: Backend, length: int, rotary_key: Hashable, keep: Keep | None = None
    ):
        self.rows: list[Row] = []
        self.length = length
        self.rotary_key = rotary_key
        self.slots = 0
        self.cache: Any = None  # a Cache as soon as there are rows
        self._backend = backend
        self._keep = keep or (lambda *_: None)

    def slots_with(self, new_rows: int) -> int:
        """Return the number of slots that the batch needs for so many new rows.

        The number is a power of two where it has to grow, and never shrinks.
        """
        needed = len(self.rows) + new_rows
        power_of_two = 1 << max(needed - 1, 0).bit_length()
        return max(self.slots, min(power_of_two, self._backend.max_rows))

    def add_rows(self, rows: Sequence[Row], known: Sequence[tuple[Cache, int] | None] = ()) -> None:
        """Run the prompts of new rows in one forward pass, and give each row its first token.

        Args:
            rows: the new rows.
            known: see `run_prompts`.
        """
        self.join(rows, self.run_prompts(rows, known))

    def run_prompts(
        self,
        rows: Sequence[Row],
        known: Sequence[tuple[Cache, int] | None] = (),
        with_running: bool = False,
    ) -> Logits:
        """Run the prompts of new rows in one forward pass. `join` adds the rows to the batch.

        Args:
            rows: the new rows.
            known: for each row, a cache that contains the first tokens of its prompt in its first
                slot, and their number; None if all tokens are to be run. By default, that is so for
                all rows.
            with_running: whether the last tokens of the running rows go through the model in the same
                pass. For paged backends only. Their logits are the first ones.
        """
        self._make_room(len(rows))
        first = len(self.rows)
        past = [0] * len(rows)
        for index, prefix in enumerate(known):
            if prefix:
                cache, past[index] = prefix
                self.cache.copy(cache, 0, first + index, past[index])
        tokens = [row.tokens[start:] for row, start in zip(rows, past)]
        if with_running:
            first, tokens, past = 0, [*self._last_tokens(), *tokens], [*self._lengths(), *past]
        logits: Logits = self.cache.forward(first, tokens, past)
        return logits

    def join(self, rows: Sequence[Row], logits: Logits, with_running: bool = False) -> None:
        """Add rows whose prompts `run_prompts` has run, and give each of them its first token.

        With `with_running`, the running rows get their next token as well.
        """
        first = len(self.rows)
        self.rows.extend(rows)
        for slot, row in enumerate(rows, first):
            self._keep(row.tokens, self.cache, slot, self.rotary_key)
        self._add_tokens(logits, 0 if with_running else first)

    def add_prefilled_row(self, row: Row, cache: Cache, logits: Logits) -> None:
        """Add a row whose prompt was run in another cache, and give it its first token."""
        self._make_room(1)
        self.cache.copy(cache, 0, len(self.rows), len(row.tokens))
        self._keep(row.tokens, cache, 0, self.rotary_key)
        self.rows.append(row)
        self._add_tokens(logits, len(self.rows) - 1)

    def step(self) -> None:
        """Generate one more token for every row."""
        self.add_tokens(self.forward())

    def forward(self, guest: Piece | None = None) -> Logits:
        """Run the last tokens of all rows through the model, and those of a guest."""
        tokens, past = self._last_tokens(), self._lengths()
        logits: Logits = self.cache.forward(0, tokens, past, *([guest] if guest else []))
        return logits

    def _last_tokens(self) -> list[list[int]]:
        return [row.tokens[-1:] for row in self.rows]

    def _lengths(self) -> list[int]:
        """Return the number of tokens that each row has in the cache."""
        return [len(row.tokens) - 1 for row in self.rows]

    def add_tokens(self, logits: Logits) -> None:
        """Give every row its next token."""
        self._add_tokens(logits, 0)

    def discard(self, row: Row) -> None:
        """Remove a row, if it is in the batch."""
        if row in self.rows:
            self._remove(self.rows.index(row))

    def remove_outgrown_rows(self) -> list[Row]:
        """Remove and return the rows that need a longer cache or other rotary factors.

        Their tokens are run again: cached keys were computed with the earlier rotary factors.
        """
        outgrown = [row for row in self.rows if self._is_outgrown(row)]
        for row in outgrown:
            self._remove(self.rows.index(row))
        return outgrown

    def _is_outgrown(self, row: Row) -> bool:
        length = len(row.tokens)
        return length > self.length or self._backend.rotary_key(length) != self.rotary_key

    def _add_tokens(self, logits: Logits, first_slot: int) -> None:
        rows = self.rows[first_slot:]
        # A GPU computes the logits meanwhile: they are needed only below.
        allowed: dict[int, np.ndarray] = {}
        for index, row in enumerate(rows):
            if row.is_constrained:
                with row.failing_alone():
                    allowed[index] = row.allowed()
        tokens = logits.best({i: mask for i, mask in allowed.items() if not rows[i].needs_logits})
        ended = []
        for index, row in enumerate(rows):
            has_ended = True  # so has a row that fails
            with row.failing_alone():
                if not row.completion.done():
                    token = tokens[index]
                    if row.needs_logits:
                        token = row.choose(logits.row(index), allowed.get(index))
                    has_ended = row.add_token(token)
            if has_ended:
                ended.append(first_slot + index)
        for slot in reversed(ended):
            row = self.rows[slot]
            self._keep(row.tokens[:-1], self.cache, slot, self.rotary_key)
            self._remove(slot)
            row.finish()

    def _remove(self, slot: int) -> None:
        last_row = self.rows.pop()
        if slot < len(self.rows):  # the last row moves into the gap
            self.rows[slot] = last_row
            self.cache.copy(self.cache, len(self.rows), slot, len(last_row.tokens) - 1)
        self.cache.release(len(self.rows))

    def _make_room(self, new_rows: int) -> None:
        slots = self.slots_with(new_rows)
        if slots == self.slots:
            return
        cache = self._backend.make_cache(slots, self.length)
        for slot, row in enumerate(self.rows):
            cache.copy(self.cache, slot, slot, len(row.tokens) - 1)
        self.cache, self.slots = cache, slots


class Prefill:
    """A prompt that is run alone: in chunks, so that the running rows are not held up.

    Args:
        backend: the model.
        row: the row of the prompt.
        known: a cache that contains the first tokens of the prompt in its first slot, and their
            number; None if all tokens are to be run.
    """

    def __init__(self, backend: Backend, row: Row, known: tuple[Cache, int] | None = None):
        self.row = row
        # A chunk gets the rotary factors of its own end. All tokens of a row need the same ones.
        same_factors = backend.rotary_key(1) == backend.rotary_key(len(row.tokens))
        self._chunk_length = backend.prefill_chunk if same_factors else len(row.tokens)
        self._past = 0
        self.cache = backend.make_cache(1, len(row.tokens))
        if known:
            cache, self._past = known
            self.cache.copy(cache, 0, 0, self._past)

    def next_piece(self) -> Piece:
        """Return the next chunk."""
        chunk = self.row.tokens[self._past : self._past + self._chunk_length]
        return Piece(self.cache, chunk, self._past)

    def forward(self) -> Logits:
        """Run the next chunk alone, and return its logits."""
        piece = self.next_piece()
        logits: Logits = self.cache.forward(0, [piece.tokens], [piece.past])
        return logits

    def advance(self) -> bool:
        """Count the next chunk as run. Return whether it was the last one."""
        self._past += len(self.next_piece().tokens)
        return self._past == len(self.row.tokens)
