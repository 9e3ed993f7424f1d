"""One answer in the making: how to generate it, its tokens, its text, its stop strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

FinishReason = Literal["stop", "length"]
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Params:
    """How to generate. `temperature`, `top_p` and `seed` count only with `do_sample`."""

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


class Row:
    """One prompt on its way through the engine.

    prompt: token ids, at least one. number: which prompt of its request it is; with the seed it
    decides what is sampled, whatever else is in the batch. on_text: told of text as it comes.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: Params,
        decode: Callable[[list[int]], str],
        end_tokens: frozenset[int],
        number: int = 0,
        on_text: Callable[[str], None] | None = None,
    ):
        self.tokens = list(prompt)  # the prompt and what came after it
        self.params = params
        self.need = len(self.tokens) + params.max_new_tokens
        self.answer: Future[Completion] = Future()
        self.cancelled = False
        self._prompt_length = len(self.tokens)
        self._decode = decode
        self._end_tokens = end_tokens
        self._on_text = on_text
        # Decoding token by token costs time that only streams and stop strings need.
        self._live = on_text is not None or bool(params.stop)
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(params.stop)
        self._pieces: list[str] = []
        self._ended = False
        self._number = number

    @property
    def count(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self._prompt_length

    @property
    def greedy(self) -> bool:
        return not self.params.do_sample

    @cached_property
    def _random(self) -> np.random.Generator:
        seed = self.params.seed
        return np.random.default_rng(None if seed is None else [seed % 2**64, self._number])

    def sample(self, logits: np.ndarray) -> int:
        """Draw the next token. logits: float32, one for each token of the vocabulary."""
        scaled = (logits.astype(np.float64) - logits.max()) / self.params.temperature
        chances = np.exp(scaled)
        chances /= chances.sum()
        return draw(chances, self.params.top_p, self._random.random())

    def push(self, token: int) -> bool:
        """Take the next token; True when the row wants no more."""
        self.tokens.append(token)
        self._ended = token in self._end_tokens
        if self._live and not self._ended:
            self._show(self._scanner.push(self._detokenizer.push(token)))
        full = self.count >= self.params.max_new_tokens
        return self._ended or self._scanner.hit or full or self.cancelled

    def finish(self) -> None:
        """Settle the answer from what was pushed."""
        if self._live:
            self._show(self._scanner.push(self._detokenizer.flush()))
            self._show(self._scanner.flush())
            text = "".join(self._pieces)
        else:
            generated = self.tokens[self._prompt_length :]
            text = self._decode(generated[:-1] if self._ended else generated)
        stopped = self._ended or self._scanner.hit
        self.answer.set_result(Completion(text, self.count, "stop" if stopped else "length"))

    def _show(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            if self._on_text:
                self._on_text(piece)


def draw(chances: np.ndarray, top_p: float, at: float) -> int:
    """The token at `at` (0 to 1) of the likeliest tokens that make up top_p of the chances."""
    # What is cut off weighs 1 - top_p together, so a token below this share of it is cut off.
    tokens = np.flatnonzero(chances > (1 - top_p) / len(chances))
    order = tokens[np.argsort(-chances[tokens], kind="stable")]
    total = np.cumsum(chances[order])
    kept = int(np.searchsorted(total, top_p * total[-1] if top_p == 1 else top_p)) + 1
    kept = min(kept, len(order))
    return int(order[min(int(np.searchsorted(total, at * total[kept - 1], "right")), kept - 1)])


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
