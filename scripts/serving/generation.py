"""One answer while it is generated: its tokens, its text and its stop strings."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sampling import GenerationParams, Sampler, TokenLogprobs

FinishReason = Literal["stop", "length"]
UNLIMITED_ROOM = 128  # tokens to plan for where a request does not limit its answer
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    Attributes:
        text: the answer, without stop strings and special tokens.
        tokens: number of generated tokens, including the end token.
        finish_reason: "stop" after an end token, after a stop string and at the end of a grammar,
            "length" otherwise.
        logprobs: one entry per generated token, without the end token; empty if the request does not
            ask for them.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprobs, ...] = ()


class Row:
    """One prompt and its answer, as a row of a batch.

    Args:
        prompt: token ids, at least one.
        params: how to generate the answer.
        decode: function that turns token ids into text.
        end_tokens: tokens that end the answer.
        context_window: length in tokens of a row whose request does not limit its answer.
        index: index of the prompt in its request. Together with the seed it determines what is
            sampled, regardless of the other rows in the batch.
        on_text: called with each piece of text as soon as it is generated.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: GenerationParams,
        decode: Callable[[list[int]], str],
        end_tokens: frozenset[int],
        context_window: int,
        index: int = 0,
        on_text: Callable[[str], None] | None = None,
    ):
        self.tokens = list(prompt)  # the prompt and the answer
        self.params = params
        limit = params.max_new_tokens
        self.max_length = context_window if limit is None else len(self.tokens) + limit
        self.completion: Future[Completion] = Future()
        self.cancelled = False
        self.reserved = 0  # tokens of memory that the engine keeps free for the row
        self._prompt_length = len(self.tokens)
        self._answer_state = params.constraint.start() if params.constraint else None
        if params.constraint and params.constraint.marks:
            decode = keep_marks(decode, params.constraint.marks)
        self._decode = decode
        self._end_tokens = end_tokens
        self._on_text = on_text
        # Only streams and stop strings need the text token by token, which takes time.
        self._incremental = on_text is not None or bool(params.stop)
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(params.stop)
        self._sampler = Sampler(params, self.tokens, index)
        self._pieces: list[str] = []
        self._ended = False  # the last token is an end token

    @property
    def generated_tokens(self) -> int:
        """The number of tokens that were generated so far."""
        return len(self.tokens) - self._prompt_length

    @property
    def length_to_plan(self) -> int:
        """The length in tokens that the cache of this row must have room for.

        A row without a limit of its own would need room for the whole context window, but most
        answers are short. It moves to a longer cache when it needs one.
        """
        if self.params.max_new_tokens is not None:
            return self.max_length
        return min(self.max_length, len(self.tokens) + UNLIMITED_ROOM)

    @property
    def needs_logits(self) -> bool:
        """Whether `choose` is needed; otherwise the next token is the most likely one."""
        return self._sampler.needs_logits

    @property
    def is_constrained(self) -> bool:
        """Whether only the tokens that `allowed` returns can be chosen."""
        return self._answer_state is not None

    def allowed(self) -> np.ndarray:
        """Return which tokens can come next: bool, one value per token of the vocabulary.

        If the grammar does not let the answer go on, only an end token can. For constrained rows only.
        """
        if self._answer_state is None:
            raise ValueError("the row has no constraint")
        allowed = self._answer_state.allowed()
        if self._answer_state.failed:
            allowed = np.zeros_like(allowed)
            allowed[min(self._end_tokens)] = True
        return allowed

    def choose(self, logits: np.ndarray, allowed: np.ndarray | None = None) -> int:
        """Choose the next token, see `Sampler.choose`."""
        return self._sampler.choose(logits, allowed)

    def add_token(self, token: int) -> bool:
        """Add the next token. Return whether it was the last one."""
        self.tokens.append(token)
        self._ended = token in self._end_tokens
        if self._incremental and not self._ended:
            self._emit(self._scanner.add(self._detokenizer.add(token)))
        if self._answer_state and not self._ended:
            self._answer_state.add(token)
        full = len(self.tokens) >= self.max_length
        return self._ended or self._is_complete or self._has_failed or full or self.cancelled

    def finish(self) -> None:
        """Set `completion` from the tokens that were added, unless the row has failed."""
        if not self.completion.done():
            with self.failing_alone():
                self.completion.set_result(self._complete())

    def fail(self, error: Exception) -> None:
        """Set an error as the result of `completion`, unless the row has ended."""
        # The frames refer to caches, whose memory is to be free now.
        traceback.clear_frames(error.__traceback__)
        if not self.completion.done():
            self.completion.set_exception(error)

    @contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Let an error in the block fail this row, and no other."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the other rows of the batch go on
            self.fail(error)

    def _complete(self) -> Completion:
        if self._incremental:
            self._emit(self._scanner.add(self._detokenizer.flush()))
            self._emit(self._scanner.flush())
            text = "".join(self._pieces)
        else:
            generated = self.tokens[self._prompt_length :]
            text = self._decode(generated[:-1] if self._ended else generated)
        is_end = (self._ended or self._is_complete) and not self._has_failed
        reason: FinishReason = "stop" if is_end else "length"
        count = self.generated_tokens
        logprobs = tuple(self._sampler.logprobs[: count - self._ended])
        return Completion(text, count, reason, logprobs)

    @property
    def _is_complete(self) -> bool:
        """Whether a stop string or the end of the grammar has been reached."""
        return self._scanner.stopped or (
            self._answer_state is not None and self._answer_state.ended
        )

    @property
    def _has_failed(self) -> bool:
        """Whether the grammar does not let the answer go on, although it is incomplete."""
        return self._answer_state is not None and self._answer_state.failed

    def _emit(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            if self._on_text:
                self._on_text(piece)


def keep_marks(
    decode: Callable[[list[int]], str], marks: Mapping[int, str]
) -> Callable[[list[int]], str]:
    """Return a function that decodes as `decode` does, and keeps some control tokens.

    Args:
        decode: function that turns token ids into text, without control tokens.
        marks: texts of the control tokens that are kept, by token id.
    """

    def decode_with_marks(ids: list[int]) -> str:
        texts: list[str] = []
        start = 0
        for position, token in enumerate(ids):
            if token in marks:
                texts += [decode(ids[start:position]), marks[token]]
                start = position + 1
        return "".join([*texts, decode(ids[start:])])

    return decode_with_marks


class Detokenizer:
    """Turns token ids into text piece by piece, and never splits a character.

    A character may consist of several byte tokens. Text that ends in U+FFFD is therefore held back
    until the next tokens complete it. Decoding starts at the tokens of the previous piece, not at
    the last token, because some tokenizers (SentencePiece) drop a leading space.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode = decode
        self._ids: list[int] = []
        self._context_start = 0  # where the tokens of the previous piece start
        self._context_end = 0  # where they end: later tokens have not become text yet

    def add(self, token: int) -> str:
        """Add a token and return the text that it completed, which is empty at times."""
        self._ids.append(token)
        return self._next_piece(hold_back=True)

    def flush(self) -> str:
        """Return the text that was held back. Incomplete characters become U+FFFD."""
        return self._next_piece(hold_back=False)

    def _next_piece(self, hold_back: bool) -> str:
        context = self._decode(self._ids[self._context_start : self._context_end])
        text = self._decode(self._ids[self._context_start :])
        if len(text) <= len(context) or (hold_back and text.endswith(INCOMPLETE)):
            return ""
        self._context_start, self._context_end = self._context_end, len(self._ids)
        return text[len(context) :]


class StopScanner:
    """Passes on text up to the first stop string.

    The end of the text is held back as long as it may be the start of a stop string.
    """

    def __init__(self, stop: Sequence[str]):
        self.stopped = False
        self._stop = stop
        self._held_back = ""

    def add(self, piece: str) -> str:
        """Add a piece of text and return the text that can be passed on.

        After a stop string the result is always empty.
        """
        if self.stopped:
            return ""
        text = self._held_back + piece
        positions = [position for position in map(text.find, self._stop) if position >= 0]
        if positions:
            self.stopped, self._held_back = True, ""
            return text[: min(positions)]
        end = len(text) - max((overlap(text, stop) for stop in self._stop), default=0)
        self._held_back = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return the text that was held back and did not become a stop string."""
        text, self._held_back = self._held_back, ""
        return text


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
