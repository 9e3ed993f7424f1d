"""The engine: continuous batching of all requests over one model.

A request joins the running batch at the next token and leaves it with its own last token, so no
request waits for a batch to fill or to end. A backend only runs tokens through the model
(`batching.Backend`). The queue, the limits, sampling, text and cancellation are shared by all
backends and implemented here, in `batching.py` and in `generation.py`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Protocol

from batching import Backend, Batch, Cache, Prefill
from constraints import GrammarCompiler
from generation import Completion, Row
from prefix_cache import PrefixCache
from sampling import GenerationParams

MAX_WAITING = 256  # rows
ABANDONED_POLL_S = 0.25  # between two questions whether anybody waits for an answer
SHORTEST_CACHE = 512  # tokens; longer caches have 4, 16, ... times this length


class BusyError(Exception):
    """The engine cannot take the request, because too many requests are waiting."""


class Engine(Protocol):
    """A loaded model. Every method may be called from many threads at once.

    Attributes:
        context_window: tokens of a prompt and its answer together.
        vocabulary_size: number of tokens that the model knows.
        grammars: compiles the grammars of answers for this model's tokens.
        tool_format: the model's format of tools, see `tool_format.template_format`.
    """

    context_window: int
    vocabulary_size: int
    grammars: GrammarCompiler
    tool_format: str

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the messages in the model's chat template, up to where the answer starts."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a rendered prompt, without adding special tokens.

        Control tokens in the text are control tokens. For messages, use `encode_chat`.
        """

    def encode_chat(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Return the token ids of the messages and tools in the model's chat template.

        A control token in a message or in a tool becomes ordinary text.
        """

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens, without special tokens."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: GenerationParams,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        """Return one completion per prompt, in the order of the prompts. Raises BusyError.

        `is_abandoned` is called several times a second. As soon as it returns True, nobody waits for
        the answers any more, and they end at their next tokens.
        """

    def stream(
        self, prompt: list[int], params: GenerationParams
    ) -> Generator[str, None, Completion]:
        """Yield pieces of text as they are generated, and return the completion.

        Raises BusyError when it is called, not at the first piece.
        """

    def close(self) -> None:
        """Finish the running requests, fail the waiting ones, and end the engine's thread."""


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


class BatchingEngine:
    """An Engine over a backend. One thread owns the model and gives every row its next token.

    At most `max_waiting` rows wait, and a row starts only while all caches together fit into the
    backend's `max_cache_bytes`. Rows start in the order in which they came, except that a row which
    cannot join the next forward pass is overtaken by rows which can.
    """

    def __init__(self, backend: Backend, max_waiting: int = MAX_WAITING):
        self.context_window = backend.context_window
        self.vocabulary_size = backend.vocabulary_size
        self.render = backend.render
        self.encode = backend.encode
        self.encode_chat = backend.encode_chat
        self.decode = backend.decode
        self.grammars = backend.grammars
        self.tool_format = backend.tool_format
        self.batch_sizes: deque[int] = deque(maxlen=1000)  # of the last steps, for measurements
        self._backend = backend
        self._max_waiting = max_waiting
        self._waiting: deque[Row] = deque()
        self._batches: dict[Hashable, Batch] = {}
        self._prefill: Prefill | None = None
        self._prefixes = PrefixCache(backend)
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: GenerationParams,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        rows = [self._make_row(prompt, params, index) for index, prompt in enumerate(prompts)]
        self._submit(rows)
        if is_abandoned is not None:
            _cancel_if_abandoned(rows, is_abandoned)
        return [row.completion.result() for row in rows]

    def stream(
        self, prompt: list[int], params: GenerationParams
    ) -> Generator[str, None, Completion]:
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        row = self._make_row(prompt, params, 0, pieces.put)
        row.completion.add_done_callback(lambda _: pieces.put(None))
        self._submit([row])
        return _read_pieces(row, pieces)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _make_row(
        self, prompt: list[int], params: GenerationParams, index: int, on_text: Any = None
    ) -> Row:
        backend = self._backend
        # The model needs at least one token to start from.
        prompt = prompt or [backend.pad_token]
        window, end_tokens = backend.context_window, backend.end_tokens
        return Row(prompt, params, backend.decode, end_tokens, window, index, on_text)

    def _submit(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._closed:
                raise BusyError("the model is being shut down")
            # A request's rows are accepted together, even if they exceed the limit: half a list of
            # answers would be useless.
            if len(self._waiting) >= self._max_waiting:
                raise BusyError(
                    f"{len(self._waiting)} requests are waiting already; try again later"
                )
            self._waiting.extend(rows)
            self._changed.notify_all()

    # --- the engine's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        while self._wait_for_work():
            if rows := self._take_waiting():
                self._start(rows)
            self._remove_outgrown_rows()
            host = self._find_host()
            if self._prefill:
                self._step_prefill(self._prefill, host)
            self._remove_outgrown_rows()
            for key, batch in list(self._batches.items()):
                if batch.rows and batch is not host:
                    self.batch_sizes.append(len(batch.rows))
                    self._guard(batch.step, batch.rows, key)

    def _wait_for_work(self) -> bool:
        """Wait for rows. Return False when the engine is closed and no row is running."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._running())
            if self._closed:
                for row in self._waiting:
                    row.completion.set_exception(BusyError("the model is being shut down"))
                self._waiting.clear()
            return bool(self._waiting or self._running())

    def _running(self) -> int:
        """Return the number of rows that have started and not ended."""
        in_batches = sum(len(batch.rows) for batch in self._batches.values())
        return in_batches + (self._prefill is not None)

    def _take_waiting(self) -> list[NewRow]:
        """Take waiting rows whose prompts can go through the model in one forward pass.

        A row that cannot start in one pass becomes `_prefill` instead, if there is none.
        """
        taken: list[NewRow] = []
        skipped: list[Row] = []
        with self._changed:
            free_rows = self._backend.max_rows - self._running()
            while self._waiting and free_rows > len(taken):
                row = self._waiting.popleft()
                if row.cancelled:
                    row.finish()
                    continue
                if not self._fits_in_memory(row, len(taken)):
                    skipped.append(row)
                    break  # rows that overtake this one could keep it waiting for ever
                new = NewRow(row, self._find_known(row))
                if self._starts_in_one_pass(new):
                    if self._share_a_pass([*taken, new]):
                        taken.append(new)
                    else:
                        skipped.append(row)
                elif self._prefill is None:
                    self._start_prefill(new)
                    free_rows -= 1
                else:
                    skipped.append(row)
            self._waiting.extendleft(reversed(skipped))
        return taken

    def _find_known(self, row: Row) -> tuple[Cache, int] | None:
        found = self._prefixes.find(row.tokens)
        return (found[0].cache, found[1]) if found else None

    def _starts_in_one_pass(self, new: NewRow) -> bool:
        backend = self._backend
        return new.count <= backend.prefill_chunk and (backend.is_paged or new.known is None)

    def _share_a_pass(self, new_rows: Sequence[NewRow]) -> bool:
        """Return whether the prompts of these rows may go through the model in one pass."""
        counts = [new.count for new in new_rows]
        total = sum(counts) if self._backend.is_paged else max(counts) * len(counts)
        same_batch = len({self._batch_key(new.row) for new in new_rows}) == 1
        return same_batch and (len(counts) == 1 or total <= self._backend.prefill_chunk)

    def _start(self, new_rows: Sequence[NewRow]) -> None:
        rows = [new.row for new in new_rows]
        key = self._batch_key(rows[0])
        batch = self._get_batch(key)
        known = [new.known for new in new_rows]
        self._guard(lambda: batch.add_rows(rows, known), rows, None if batch.rows else key)

    def _start_prefill(self, new: NewRow) -> None:
        def start() -> None:
            self._prefill = Prefill(self._backend, new.row, new.known)

        self._guard(start, [new.row])

    def _find_host(self) -> Batch | None:
        """Return a batch whose rows can share their forward passes with the prefill."""
        prefill = self._prefill
        if not prefill or not self._backend.is_paged or prefill.row.cancelled:
            return None
        rotary_key = self._backend.rotary_key(len(prefill.row.tokens))
        batches = self._batches.values()
        return next((item for item in batches if item.rows and item.rotary_key == rotary_key), None)

    def _step_prefill(self, prefill: Prefill, host: Batch | None) -> None:
        row, result = prefill.row, None

        def step() -> None:
            nonlocal result
            result = prefill.step(host)
            if result:
                self._get_batch(self._batch_key(row)).add_prefilled_row(row, *result)

        if row.cancelled:
            row.finish()
        elif host:
            key = host.length, host.rotary_key
            self.batch_sizes.append(len(host.rows))
            self._guard(step, [row, *host.rows], key)
        else:
            self._guard(step, [row])
        if result or row.completion.done():
            self._prefill = None

    def _remove_outgrown_rows(self) -> None:
        for batch in self._batches.values():
            rows = batch.remove_outgrown_rows()
            with self._changed:
                self._waiting.extendleft(rows)

    def _guard(self, work: Callable[[], Any], rows: Sequence[Row], key: Hashable = None) -> None:
        """Call `work`. If it fails, fail its rows, and drop the batch with this key."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must outlive a failed batch
            self._batches.pop(key, None)
            for row in rows:
                if not row.completion.done():
                    row.completion.set_exception(error)

    # --- batches and their memory ----------------------------------------------------------------

    def _batch_key(self, row: Row) -> tuple[int, Hashable]:
        """Return the cache length and the rotary key of the batch that a row belongs to."""
        length = SHORTEST_CACHE
        needed = row.length_to_plan
        while length < needed:
            length *= 4
        window = max(self.context_window, needed)
        return min(length, window), self._backend.rotary_key(len(row.tokens))

    def _get_batch(self, key: tuple[int, Hashable]) -> Batch:
        if key not in self._batches:
            self._batches[key] = Batch(self._backend, *key, self._prefixes.keep)
        return self._batches[key]

    def _fits_in_memory(self, row: Row, taken: int) -> bool:
        """Return whether the caches have room for a row. A row that would run alone always fits."""
        limit = self._backend.max_cache_bytes // self._backend.bytes_per_token
        if self._cached_tokens_with(row, taken) <= limit:
            return True
        self._batches = {key: batch for key, batch in self._batches.items() if batch.rows}
        while self._cached_tokens_with(row, taken) > limit and self._prefixes.drop_oldest():
            pass
        alone = not taken and not self._running()
        return alone or self._cached_tokens_with(row, taken) <= limit

    def _cached_tokens_with(self, row: Row, taken: int) -> int:
        """Return the size of all caches, in tokens, with `taken` new rows and this one."""
        key = self._batch_key(row)
        if self._backend.is_paged:
            return self._reserved_tokens() + (taken + 1) * min(key[0], row.max_length)
        row_batch = self._batches.get(key) or Batch(self._backend, *key)
        other_batches = sum(
            batch.slots * batch.length for batch in self._batches.values() if batch is not row_batch
        )
        prompts = [row] + ([self._prefill.row] if self._prefill else [])
        lengths = [len(prompt.tokens) for prompt in prompts]
        prefills = sum(length for length in lengths if length > self._backend.prefill_chunk)
        batch = row_batch.slots_with(taken + 1) * row_batch.length
        return other_batches + batch + prefills + self._prefixes.tokens

    def _reserved_tokens(self) -> int:
        """Return the size that the rows of a paged backend can have before they move, in tokens."""
        batches = self._batches.values()
        running = sum(min(item.length, row.max_length) for item in batches for row in item.rows)
        if self._prefill:
            row = self._prefill.row
            running += min(self._batch_key(row)[0], row.max_length)
        return running + self._prefixes.tokens


def _cancel_if_abandoned(rows: Sequence[Row], is_abandoned: Callable[[], bool]) -> None:
    """Wait until all rows have ended, and cancel them as soon as they are abandoned."""
    completions = [row.completion for row in rows]
    while wait(completions, ABANDONED_POLL_S).not_done:
        if is_abandoned():
            for row in rows:
                row.cancelled = True
            return


def _read_pieces(
    row: Row, pieces: queue.SimpleQueue[str | None]
) -> Generator[str, None, Completion]:
    try:
        while (piece := pieces.get()) is not None:
            yield piece
        return row.completion.result()
    finally:
        row.cancelled = True  # the reader has gone: the row ends at its next token
