"""What the scoring code needs of a model: an Engine, and the batching that every engine shares.

A backend only turns a batch of rows into tokens (`Backend.run`); queueing, batching, stop
strings, text and cancellation are here, once. `engine_transformers.py` is the backend there is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

MAX_BATCH = 16
MAX_WAITING = 256
# How long a batch waits for company, only when the one before it had some: the clients that were
# just answered are about to send again, and without this wait batches of 1 and 15 alternate.
GATHER_S = 0.003

FinishReason = Literal["stop", "length"]
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class BusyError(Exception):
    """Too many requests are waiting already."""


@dataclass(frozen=True)
class Params:
    """How to generate. `temperature` and `top_p` count only with `do_sample`."""

    max_new_tokens: int = 128
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """One answer; `tokens` counts what was generated, the end token included."""

    text: str
    tokens: int
    finish_reason: FinishReason


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


class Detokenizer:
    """Token ids to text, a piece at a time, never half a character.

    A character may take several byte tokens: text that ends in U+FFFD is held back until the
    next tokens complete it. Decoding starts at the last piece's tokens, not at the last token,
    because some tokenizers (SentencePiece) drop a leading space.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0
        self._done = 0

    def push(self, token: int) -> str:
        """Take a token; the text that it completed, often one word, sometimes nothing."""
        self._ids.append(token)
        return self._take(hold=True)

    def flush(self) -> str:
        """What was held back, with U+FFFD for a character that never got complete."""
        return self._take(hold=False)

    def _take(self, hold: bool) -> str:
        before = self._decode(self._ids[self._context : self._done])
        text = self._decode(self._ids[self._context :])
        if len(text) <= len(before) or (hold and text.endswith(INCOMPLETE)):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return text[len(before) :]


class StopScanner:
    """Text up to the first stop string; text that may be the start of one is held back."""

    def __init__(self, stop: Sequence[str]):
        self._stop = stop
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """Take a piece; what can be shown of it. After a hit nothing comes any more."""
        if self.hit:
            return ""
        text = self._held + piece
        found = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        cut = len(text) - max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of text are the beginning of stop."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class Row:
    """One prompt on its way through the engine. A backend calls `push`, then `finish`."""

    def __init__(
        self,
        prompt: list[int],
        params: Params,
        key: object,
        decode: Callable[[list[int]], str],
        on_text: Callable[[str], None] | None = None,
    ):
        self.prompt = prompt
        self.params = params
        self.key = key  # rows with equal keys may share a batch
        self.answer: Future[Completion] = Future()
        self.cancelled = False
        self._decode = decode
        self._on_text = on_text
        # Decoding token by token costs time that only streams and stop strings need.
        self._live = on_text is not None or bool(params.stop)
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(params.stop)
        self._ids: list[int] = []
        self._pieces: list[str] = []
        self._count = 0
        self._reason: FinishReason = "length"
        self.done = False

    def push(self, token: int, end_tokens: frozenset[int]) -> bool:
        """Take the next token; True when the row wants no more."""
        if self.done:
            return True
        self._count += 1
        if token in end_tokens:
            self._reason = "stop"
        else:
            self._ids.append(token)
            if self._live:
                self._show(self._scanner.push(self._detokenizer.push(token)))
        if self._scanner.hit:
            self._reason = "stop"
        full = self._count >= self.params.max_new_tokens
        self.done = self._reason == "stop" or full or self.cancelled
        return self.done

    def finish(self) -> None:
        """Settle the answer from what was pushed."""
        if self._live:
            self._show(self._scanner.push(self._detokenizer.flush()))
            self._show(self._scanner.flush())
            text = "".join(self._pieces)
        else:
            text = self._decode(self._ids)
        reason: FinishReason = "stop" if self._scanner.hit else self._reason
        self.answer.set_result(Completion(text, self._count, reason))

    def _show(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            if self._on_text:
                self._on_text(piece)


class Backend(Protocol):
    """A model and its tokenizer."""

    context_window: int

    def render(self, messages: Sequence[dict[str, str]]) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def batch_class(self, length: int) -> object:
        """Prompts whose lengths (answer included) have equal classes may share a batch."""

    def run(self, rows: Sequence[Row]) -> None:
        """Push tokens into every row until all are done. All rows have the same key."""


class BatchingEngine:
    """An Engine over a backend: one thread owns the model and takes waiting rows in batches.

    Greedy rows are generated together, whatever their limits and stop strings; a sampled request
    has a batch of its own, so that its seed decides its answer.
    """

    def __init__(self, backend: Backend, max_waiting: int = MAX_WAITING):
        self.context_window = backend.context_window
        self.render = backend.render
        self.encode = backend.encode
        self.batch_sizes: deque[int] = deque(maxlen=1000)  # what was run, for measurements
        self._backend = backend
        self._max_waiting = max_waiting
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def generate(self, prompts: Sequence[list[int]], params: Params) -> list[Completion]:
        alone = object()
        rows = [self._row(prompt, params, alone) for prompt in prompts]
        self._submit(rows)
        return [row.answer.result() for row in rows]

    def stream(self, prompt: list[int], params: Params) -> Generator[str, None, Completion]:
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        row = self._row(prompt, params, object(), pieces.put)
        row.answer.add_done_callback(lambda _: pieces.put(None))
        self._submit([row])
        return _pieces_of(row, pieces)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _row(self, prompt: list[int], params: Params, alone: object, on_text: Any = None) -> Row:
        length = len(prompt) + params.max_new_tokens
        key = alone if params.do_sample else self._backend.batch_class(length)
        return Row(prompt, params, key, self._backend.decode, on_text)

    def _submit(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._closed:
                raise BusyError("the model is being shut down")
            # A request is taken whole while there is room: half a list is no use to anybody.
            if len(self._waiting) >= self._max_waiting:
                raise BusyError(f"{len(self._waiting)} requests are waiting already")
            self._waiting.extend(rows)
            self._changed.notify_all()

    def _work(self) -> None:
        crowded = False
        while batch := self._next_batch(crowded):
            crowded = len(batch) > 1
            self.batch_sizes.append(len(batch))
            try:
                self._backend.run(batch)
                for row in batch:
                    row.finish()
            except Exception as error:  # noqa: BLE001 - the thread must outlive a failed batch
                for row in batch:
                    if not row.answer.done():
                        row.answer.set_exception(error)

    def _next_batch(self, crowded: bool) -> list[Row]:
        """Wait for rows and take those that go with the oldest; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if crowded and not self._closed:
                self._gather()
            if self._closed:
                for row in self._waiting:
                    row.answer.set_exception(BusyError("the model is being shut down"))
                self._waiting.clear()
                return []
            key = self._waiting[0].key
            batch = [row for row in self._waiting if row.key == key][:MAX_BATCH]
            taken = set(map(id, batch))
            self._waiting = deque(row for row in self._waiting if id(row) not in taken)
            return batch

    def _gather(self) -> None:
        end = time.monotonic() + GATHER_S
        while len(self._waiting) < MAX_BATCH and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)


def _pieces_of(row: Row, pieces: queue.SimpleQueue[str | None]) -> Generator[str, None, Completion]:
    try:
        while (piece := pieces.get()) is not None:
            yield piece
        return row.answer.result()
    finally:
        row.cancelled = True  # nobody listens any more: the batch drops the row
