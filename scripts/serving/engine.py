"""The engine: continuous batching of all requests over one model.

A request joins the running batch at the next token and leaves it with its own last token, so no
request waits for a batch to fill or to end. A backend only runs tokens through the model
(`batching.Backend`). The queue, the limits, sampling, text and cancellation are shared by all
backends and implemented here, in `batching.py` and in `generation.py`.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakSet

from admission import NewRow, paged_tokens, planned_length, reserved_tokens, slot_tokens
from batching import Backend, Batch, Cache, Logits, Prefill
from engine_interface import BusyError
from generation import Completion, Row
from prefix_cache import PrefixCache
from sampling import GenerationParams
from streams import IsAbandoned, Stream, cancel_if_abandoned, read_pieces

log = logging.getLogger("phi3.score")
MAX_WAITING = 256  # rows
IDLE_S = 1.0  # time without requests, after which memory is given back


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
        self._rows: WeakSet[Row] = WeakSet()  # all rows that a request waits for
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
        is_abandoned: IsAbandoned | None = None,
    ) -> list[Completion]:
        rows = [self._make_row(prompt, params, index) for index, prompt in enumerate(prompts)]
        self._submit(rows)
        if is_abandoned is not None:
            cancel_if_abandoned(rows, is_abandoned, lambda: self._cancel(rows))
        return [row.completion.result() for row in rows]

    def stream(
        self,
        prompt: list[int],
        params: GenerationParams,
        is_abandoned: IsAbandoned | None = None,
    ) -> Stream[str]:
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        row = self._make_row(prompt, params, 0, pieces.put)
        row.completion.add_done_callback(lambda _: pieces.put(None))
        self._submit([row])

        def cancel() -> None:
            self._cancel([row])

        return Stream(read_pieces(row, pieces, is_abandoned, cancel), cancel)

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
            self._rows.update(rows)
            self._waiting.extend(rows)
            self._changed.notify_all()

    def _cancel(self, rows: Sequence[Row]) -> None:
        """End rows whose answers nobody waits for: waiting rows now, others at their next token."""
        with self._changed:
            for row in rows:
                row.cancelled = True
                if row in self._waiting:
                    self._waiting.remove(row)
                    row.finish()

    # --- the engine's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        is_open = True
        while is_open:
            try:
                if is_open := self._wait_for_work():
                    self._work_once()
            except Exception as error:  # otherwise, all requests would wait for ever
                log.exception("the engine failed; so do all requests that it has")
                self._fail_all(error)

    def _work_once(self) -> None:
        """Let rows start, and run one chunk of a prompt and the next token of every row."""
        self._remove_outgrown_rows()
        started = self._start(new_rows) if (new_rows := self._take_waiting()) else None
        self._remove_outgrown_rows()
        host = self._find_host()
        if not self._prefill:
            pass
        elif not host or not self._step_together(self._prefill, host):
            host = None
            self._step_prefill(self._prefill)
        self._remove_outgrown_rows()
        for key, batch in list(self._batches.items()):
            if batch.rows and batch is not host and batch is not started:
                self.batch_sizes.append(len(batch.rows))
                self._guard(batch.step, batch.rows, key)

    def _fail_all(self, error: Exception) -> None:
        """Fail all rows, and forget all caches: their state is not known any more."""
        with self._changed:
            self._waiting.clear()
            self._batches, self._prefill = {}, None
            self._prefixes = PrefixCache(self._backend)
            for row in list(self._rows):
                row.fail(error)

    def _wait_for_work(self) -> bool:
        """Wait for rows. Return False when the engine is closed and no row is running."""
        with self._changed:
            if not self._changed.wait_for(self._has_work, IDLE_S):
                self._batches.clear()
                self._backend.release_memory()
                self._changed.wait_for(self._has_work)
            if self._closed:
                for row in self._waiting:
                    row.completion.set_exception(BusyError("the model is being shut down"))
                self._waiting.clear()
            return bool(self._waiting or self._running())

    def _has_work(self) -> bool:
        return bool(self._closed or self._waiting or self._running())

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
                if not self._fits_in_memory(row, [new.row for new in taken]):
                    skipped.append(row)
                    break  # rows that overtake this one could keep it waiting for ever
                row.reserved = reserved_tokens(row, self.context_window)
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
        return same_batch and (len(counts) == 1 or total <= self._backend.start_tokens)

    def _start(self, new_rows: Sequence[NewRow]) -> Batch | None:
        """Run the prompts of new rows. Return their batch if all of its rows took part in the pass."""
        rows = [new.row for new in new_rows]
        key = self._batch_key(rows[0])
        batch = self._get_batch(key)
        known = [new.known for new in new_rows]
        has_others = bool(batch.rows)
        if has_others and self._backend.is_paged and self._start_together(batch, rows, known):
            return batch
        self._guard(lambda: batch.add_rows(rows, known), rows, None if has_others else key)
        return None if has_others else batch

    def _start_together(self, batch: Batch, rows: Sequence[Row], known: Sequence[Any]) -> bool:
        """Run new prompts and their batch's next tokens in one forward pass, see `_step_together`."""
        try:
            logits = batch.run_prompts(rows, known, with_running=True)
        except Exception:
            log.exception("a pass of a batch and new prompts failed; each is run alone")
            return False
        self.batch_sizes.append(len(batch.rows))
        all_rows, key = [*batch.rows, *rows], (batch.length, batch.rotary_key)
        self._guard(lambda: batch.join(rows, logits, with_running=True), all_rows, key)
        return True

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

    def _step_prefill(self, prefill: Prefill) -> None:
        """Run the next chunk of a prompt, and let the row join a batch after the last one."""
        if prefill.row.cancelled:
            prefill.row.finish()
            self._prefill = None
        else:
            self._guard(lambda: self._advance(prefill, prefill.forward()), [prefill.row])

    def _step_together(self, prefill: Prefill, host: Batch) -> bool:
        """Run the next chunk of a prompt and the next tokens of a batch in one forward pass.

        Returns False if the pass fails. Each of the two can still be run alone, and then only the one
        that causes the error fails.
        """
        try:
            logits = host.forward(prefill.next_piece())
        except Exception:
            log.exception("a pass of a batch and a prompt failed; each is run alone")
            return False
        guest_logits = logits.after(len(host.rows))
        self.batch_sizes.append(len(host.rows))
        key = host.length, host.rotary_key
        self._guard(lambda: host.add_tokens(logits), host.rows, key)
        self._guard(lambda: self._advance(prefill, guest_logits), [prefill.row])
        return True

    def _advance(self, prefill: Prefill, logits: Logits) -> None:
        if prefill.advance():
            self._prefill = None
            batch = self._get_batch(self._batch_key(prefill.row))
            batch.add_prefilled_row(prefill.row, prefill.cache, logits)

    def _remove_outgrown_rows(self) -> None:
        """Let rows wait again that need another batch, or more memory than there is."""
        for batch in self._batches.values():
            outgrown = batch.remove_outgrown_rows()
            if self._backend.is_paged:
                outgrown += [row for row in list(batch.rows) if not self._extend(row)]
            for row in outgrown:
                batch.discard(row)
            with self._changed:
                self._waiting.extendleft(outgrown)

    def _extend(self, row: Row) -> bool:
        """Reserve more memory for a row that has used up its own. Return whether there is enough."""
        if len(row.tokens) <= row.reserved:
            return True
        reserved, row.reserved = row.reserved, 0
        if self._fits_in_memory(row, [], others=self._running() - 1):
            row.reserved = reserved_tokens(row, self.context_window)
            return True
        row.reserved = reserved
        return False

    def _guard(self, work: Callable[[], Any], rows: Sequence[Row], key: Hashable = None) -> None:
        """Call `work`. If it fails, fail its rows, and drop the batch with this key."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must outlive a failed batch
            self._batches.pop(key, None)
            if self._prefill and self._prefill.row in rows:
                self._prefill = None
            for row in list(rows):
                for batch in self._batches.values():
                    batch.discard(row)
                row.fail(error)

    # --- batches and their memory ----------------------------------------------------------------

    def _batch_key(self, row: Row) -> tuple[int, Hashable]:
        """Return the cache length and the rotary key of the batch that a row belongs to."""
        window = self.context_window
        # Rows that take memory in pages need no equal lengths.
        length = sys.maxsize if self._backend.is_paged else planned_length(row, window)
        return length, self._backend.rotary_key(len(row.tokens))

    def _get_batch(self, key: tuple[int, Hashable]) -> Batch:
        if key not in self._batches:
            self._batches[key] = Batch(self._backend, *key, self._prefixes.keep)
        return self._batches[key]

    def _fits_in_memory(self, row: Row, taken: Sequence[Row], others: int | None = None) -> bool:
        """Return whether the caches have room for a row. A row that would run alone always fits.

        Args:
            row: the row.
            taken: rows that start together with it.
            others: number of other rows that run; by default that of all running rows.
        """
        limit = self._backend.max_cache_bytes // self._backend.bytes_per_token
        if self._cached_tokens_with(row, taken) <= limit:
            return True
        self._batches = {key: batch for key, batch in self._batches.items() if batch.rows}
        alone = not taken and not (self._running() if others is None else others)
        # Prefixes are dropped only if the row then fits.
        fits = self._cached_tokens_with(row, taken) - self._prefixes.tokens <= limit
        if alone or fits:
            while self._cached_tokens_with(row, taken) > limit and self._prefixes.drop_oldest():
                pass
        return alone or fits

    def _cached_tokens_with(self, row: Row, taken: Sequence[Row]) -> int:
        """Return the size of all caches, in tokens, with the taken rows and this one."""
        batches = self._batches.values()
        prefills = [self._prefill.row] if self._prefill else []
        if self._backend.is_paged:
            running = [item for batch in batches for item in batch.rows]
            tokens = paged_tokens([*running, *prefills, *taken])
            return tokens + reserved_tokens(row, self.context_window) + self._prefixes.tokens
        key = self._batch_key(row)
        batch = self._batches.get(key) or Batch(self._backend, *key)
        chunk = self._backend.prefill_chunk
        tokens = slot_tokens(batches, batch, len(taken) + 1, [row, *prefills], chunk)
        return tokens + self._prefixes.tokens
