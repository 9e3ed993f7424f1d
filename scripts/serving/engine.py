"""What the scoring code needs of a model: an Engine, and the batching that every engine shares.

The batching is continuous: a request joins what runs at the next token and leaves with its last
one, so nobody waits for a batch to fill or to end. A backend only runs tokens through the model
(`Cache.forward`); the queue, the limits, sampling, text and cancellation are here and in
`generation.py`, once. The backends: `engine_onnx.py` and `engine_transformers.py`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, Protocol

import numpy as np
from generation import Completion, Params, Row

MAX_WAITING = 256  # rows
SHORTEST_CACHE = 512  # tokens; the longer ones are 4, 16, … times as long


class BusyError(Exception):
    """Too many requests are waiting already."""


class Engine(Protocol):
    """A loaded model. Every method may be called from many threads at once."""

    context_window: int  # tokens, prompt and answer together

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The messages through the model's chat template, ready for the answer to follow."""

    def encode(self, text: str) -> list[int]:
        """The token ids of a rendered prompt; nothing is added."""

    def generate(self, prompts: Sequence[list[int]], params: Params) -> list[Completion]:
        """One completion a prompt, in order. Raises BusyError."""

    def stream(self, prompt: list[int], params: Params) -> Generator[str, None, Completion]:
        """Pieces of text as they come; returns the completion. Raises BusyError at once."""

    def close(self) -> None:
        """Finish what runs, fail what waits, and end the engine's thread."""


class Logits(Protocol):
    """What the model says comes next, for some rows."""

    def best(self) -> list[int]:
        """The likeliest token of each row."""

    def row(self, at: int) -> np.ndarray:
        """One row's logits, float32."""


class Cache(Protocol):
    """The keys and values of a fixed number of rows (slots), each up to a fixed length."""

    def forward(self, slot: int, tokens: Sequence[Sequence[int]], past: Sequence[int]) -> Logits:
        """Run new tokens of the rows in slot, slot + 1, …; row i holds past[i] tokens already.

        Rows may differ in length where nothing is past. Gives what follows each row's last token.
        """

    def copy(self, source: Cache, from_slot: int, slot: int, length: int) -> None:
        """Take over the first `length` tokens of another cache's row."""


class Backend(Protocol):
    """A model and its tokenizer."""

    context_window: int
    end_tokens: frozenset[int]
    pad_token: int
    max_rows: int  # generated at once
    chunk: int  # tokens of prompts that are run between two tokens of the other rows
    token_bytes: int  # what a token takes in a cache
    cache_bytes: int  # what all caches together may take

    def render(self, messages: Sequence[dict[str, str]]) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def rotary(self, length: int) -> Hashable:
        """Rows may share a forward pass while this is equal for their lengths so far."""

    def make_cache(self, slots: int, length: int) -> Cache: ...


class Lane:
    """Rows that go through the model together, each in a slot of one cache; the first n are taken.

    Rows of very different lengths have lanes of their own, so that the long ones do not cost the
    short ones their memory.
    """

    def __init__(self, backend: Backend, length: int, rotary: Hashable):
        self.rows: list[Row] = []
        self.length = length
        self.rotary = rotary
        self.slots = 0
        self._backend = backend
        self.cache: Any = None  # a Cache, once there are rows

    def slots_for(self, more: int) -> int:
        """Slots with so many rows more: never fewer than there are, else a power of two."""
        needed = len(self.rows) + more
        power = 1 << max(needed - 1, 0).bit_length()
        return max(self.slots, min(power, self._backend.max_rows))

    def join(self, rows: Sequence[Row]) -> None:
        """Run the prompts of new rows, all at once, and give each its first token."""
        self._grow(len(rows))
        first = len(self.rows)
        logits = self.cache.forward(first, [row.tokens for row in rows], [0] * len(rows))
        self.rows.extend(rows)
        self._push(logits, first)

    def adopt(self, row: Row, cache: Cache, logits: Logits) -> None:
        """Take in a row whose prompt was run in a cache of its own."""
        self._grow(1)
        self.cache.copy(cache, 0, len(self.rows), len(row.tokens))
        self.rows.append(row)
        self._push(logits, len(self.rows) - 1)

    def step(self) -> None:
        """One token more for every row."""
        rows = self.rows
        past = [len(row.tokens) - 1 for row in rows]
        self._push(self.cache.forward(0, [row.tokens[-1:] for row in rows], past), 0)

    def crossed(self) -> list[Row]:
        """Take out the rows that grew into the other rotary factors: their cache is of no use."""
        out = [r for r in self.rows if self._backend.rotary(len(r.tokens)) != self.rotary]
        for row in out:
            self._leave(self.rows.index(row))
        return out

    def _push(self, logits: Logits, first: int) -> None:
        rows = self.rows[first:]
        tokens = logits.best()
        done = []
        for at, row in enumerate(rows):
            token = tokens[at] if row.greedy else row.sample(logits.row(at))
            if row.push(token):
                done.append(first + at)
        for slot in reversed(done):
            row = self.rows[slot]
            self._leave(slot)
            row.finish()

    def _leave(self, slot: int) -> None:
        last = self.rows.pop()
        if slot < len(self.rows):  # the last row moves into the gap
            self.rows[slot] = last
            self.cache.copy(self.cache, len(self.rows), slot, len(last.tokens) - 1)

    def _grow(self, more: int) -> None:
        slots = self.slots_for(more)
        if slots == self.slots:
            return
        cache = self._backend.make_cache(slots, self.length)
        for slot, row in enumerate(self.rows):
            cache.copy(self.cache, slot, slot, len(row.tokens) - 1)
        self.cache, self.slots = cache, slots


class Prefill:
    """A long prompt that is run a piece at a time, so that the other rows go on meanwhile."""

    def __init__(self, backend: Backend, row: Row):
        self.row = row
        self._chunk = backend.chunk
        self._past = 0
        self._cache = backend.make_cache(1, len(row.tokens))

    def step(self) -> tuple[Cache, Logits] | None:
        """Run the next piece; after the last one, the cache and what follows the prompt."""
        piece = self.row.tokens[self._past : self._past + self._chunk]
        logits = self._cache.forward(0, [piece], [self._past])
        self._past += len(piece)
        return (self._cache, logits) if self._past == len(self.row.tokens) else None


class BatchingEngine:
    """An Engine over a backend: one thread owns the model and gives every row its next token.

    Bounded twice: `max_waiting` rows wait at most, and rows are taken in while their caches fit
    into the backend's `cache_bytes`. Rows are taken in the order they came, but short prompts
    pass a long one that waits for another long one.
    """

    def __init__(self, backend: Backend, max_waiting: int = MAX_WAITING):
        self.context_window = backend.context_window
        self.render = backend.render
        self.encode = backend.encode
        self.batch_sizes: deque[int] = deque(maxlen=1000)  # of the last steps, for measurements
        self._backend = backend
        self._max_waiting = max_waiting
        self._waiting: deque[Row] = deque()
        self._lanes: dict[Hashable, Lane] = {}
        self._prefill: Prefill | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def generate(self, prompts: Sequence[list[int]], params: Params) -> list[Completion]:
        rows = [self._row(prompt, params, number) for number, prompt in enumerate(prompts)]
        self._submit(rows)
        return [row.answer.result() for row in rows]

    def stream(self, prompt: list[int], params: Params) -> Generator[str, None, Completion]:
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        row = self._row(prompt, params, 0, pieces.put)
        row.answer.add_done_callback(lambda _: pieces.put(None))
        self._submit([row])
        return _pieces_of(row, pieces)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _row(self, prompt: list[int], params: Params, number: int, on_text: Any = None) -> Row:
        backend = self._backend
        # An empty prompt still needs one position to start from.
        prompt = prompt or [backend.pad_token]
        return Row(prompt, params, backend.decode, backend.end_tokens, number, on_text)

    def _submit(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._closed:
                raise BusyError("the model is being shut down")
            # A request is taken whole while there is room: half a list is no use to anybody.
            if len(self._waiting) >= self._max_waiting:
                raise BusyError(f"{len(self._waiting)} requests are waiting already")
            self._waiting.extend(rows)
            self._changed.notify_all()

    # --- the engine's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        while self._wait():
            if group := self._take():
                self._join(group)
            if self._prefill:
                self._step_prefill(self._prefill)
            for key, lane in list(self._lanes.items()):
                self._requeue(lane.crossed())
                if lane.rows:
                    self.batch_sizes.append(len(lane.rows))
                    self._guard(lane.step, lane.rows, key)

    def _wait(self) -> bool:
        """Wait until there is something to do; False when closed and all that ran has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._running())
            if self._closed:
                for row in self._waiting:
                    row.answer.set_exception(BusyError("the model is being shut down"))
                self._waiting.clear()
            return bool(self._waiting or self._running())

    def _running(self) -> int:
        return sum(len(lane.rows) for lane in self._lanes.values()) + (self._prefill is not None)

    def _take(self) -> list[Row]:
        """Waiting rows whose prompts go through the model now, all of one lane; one too long for
        that becomes `_prefill`."""
        group: list[Row] = []
        passed: list[Row] = []
        with self._changed:
            room = self._backend.max_rows - self._running()
            while self._waiting and room > len(group):
                row = self._waiting.popleft()
                if row.cancelled:
                    row.finish()
                elif not self._fits(row, len(group)):
                    passed.append(row)
                    break  # whoever passed it could keep it waiting for ever
                elif len(row.tokens) <= self._backend.chunk and self._alike([*group, row]):
                    group.append(row)
                elif len(row.tokens) > self._backend.chunk and self._prefill is None:
                    self._guard(lambda row=row: self._begin(row), [row])
                    room -= 1
                else:
                    passed.append(row)
            self._waiting.extendleft(reversed(passed))
        return group

    def _begin(self, row: Row) -> None:
        self._prefill = Prefill(self._backend, row)

    def _join(self, group: list[Row]) -> None:
        key = self._key(group[0])
        lane = self._lane(key)
        self._guard(lambda: lane.join(group), group, key if lane.rows == [] else None)

    def _step_prefill(self, prefill: Prefill) -> None:
        row, done = prefill.row, None

        def step() -> None:
            nonlocal done
            done = prefill.step()
            if done:
                self._lane(self._key(row)).adopt(row, *done)

        if row.cancelled:
            row.finish()
        else:
            self._guard(step, [row])
        if done or row.answer.done():
            self._prefill = None

    def _requeue(self, rows: Sequence[Row]) -> None:
        with self._changed:
            self._waiting.extendleft(rows)

    def _guard(self, work: Callable[[], Any], rows: Sequence[Row], key: Hashable = None) -> None:
        """Do something for some rows; a failure is theirs, and the end of the lane of that key."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the thread must outlive a failed batch
            self._lanes.pop(key, None)
            for row in rows:
                if not row.answer.done():
                    row.answer.set_exception(error)

    # --- lanes and their memory ------------------------------------------------------------------

    def _key(self, row: Row) -> tuple[int, Hashable]:
        length = SHORTEST_CACHE
        while length < row.need:
            length *= 4
        window = max(self.context_window, row.need)
        return min(length, window), self._backend.rotary(len(row.tokens))

    def _lane(self, key: tuple[int, Hashable]) -> Lane:
        return self._lanes.setdefault(key, Lane(self._backend, *key))

    def _alike(self, rows: Sequence[Row]) -> bool:
        """Whether the prompts of these rows may go through the model in one go."""
        width = max(len(row.tokens) for row in rows)
        small = len(rows) == 1 or width * len(rows) <= self._backend.chunk
        return small and len(set(map(self._key, rows))) == 1

    def _fits(self, row: Row, taken: int) -> bool:
        """Whether there is memory for one row more; the first one is tried in any case."""
        limit = self._backend.cache_bytes // self._backend.token_bytes
        if self._tokens_with(row, taken) <= limit:
            return True
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.rows}
        alone = not taken and not self._running()
        return alone or self._tokens_with(row, taken) <= limit

    def _tokens_with(self, row: Row, taken: int) -> int:
        """What all caches would hold, in tokens, with this row beside so many just taken."""
        key = self._key(row)
        lane = self._lanes.get(key) or Lane(self._backend, *key)
        others = sum(x.slots * x.length for x in self._lanes.values() if x is not lane)
        prompts = [row] + ([self._prefill.row] if self._prefill else [])
        aside = sum(len(r.tokens) for r in prompts if len(r.tokens) > self._backend.chunk)
        return others + lane.slots_for(taken + 1) * lane.length + aside


def _pieces_of(row: Row, pieces: queue.SimpleQueue[str | None]) -> Generator[str, None, Completion]:
    try:
        while (piece := pieces.get()) is not None:
            yield piece
        return row.answer.result()
    finally:
        row.cancelled = True  # nobody listens any more: the row leaves at its next token
