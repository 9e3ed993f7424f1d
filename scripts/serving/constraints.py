"""Limits an answer to a grammar: at each token, only the tokens that the grammar allows can be chosen.

llguidance compiles the grammars and computes the allowed tokens. docs/model-serving.md says why it was
chosen.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import llguidance
import llguidance.numpy
import numpy as np

MAX_COMPILED = 64  # grammars that are kept
# Bounds the memory and the time of a grammar whose text is short: a regular expression can have as many
# states as 2 to the power of its length.
LIMITS = llguidance.LLParserLimits(
    initial_lexer_fuel=300_000, max_lexer_states=50_000, verbose_errors=False
)
OBJECT_START = '{"'  # after it, the keys of all optional properties are compared at once
QUIET = 0  # llguidance writes no warnings to standard error


class ConstraintError(ValueError):
    """A grammar cannot be compiled. The text is llguidance's."""


class GrammarCompiler:
    """Compiles grammars for one model, and keeps the latest ones. Safe to call from many threads.

    Compilation happens in the caller's thread, so it holds up neither the engine's thread nor requests
    without a grammar. Grammars are compiled one after the other, so they never take more than one core.

    Args:
        tokenizer_json: content of the model's tokenizer.json.
        vocabulary_size: number of the model's logits.
        end_tokens: tokens that end an answer.
    """

    def __init__(self, tokenizer_json: str, vocabulary_size: int, end_tokens: Iterable[int]):
        self.vocabulary_size = vocabulary_size
        self._lock = threading.Lock()
        self._compiled: OrderedDict[bytes, Constraint] = OrderedDict()
        self._tokenizer = None
        self._problem = ""
        try:
            self._tokenizer = llguidance.LLTokenizer(tokenizer_json, eos_token=list(end_tokens))
        except Exception as error:  # noqa: BLE001 - such a model still answers with any text
            self._problem = (str(error).splitlines() or [type(error).__name__])[0]

    def compile(self, grammar: str, marks: Mapping[int, str] | None = None) -> Constraint:
        """Return the constraint of a grammar, see `grammars`.

        Args:
            grammar: the grammar.
            marks: texts of control tokens that the answer's text keeps, by token id.

        Raises:
            ConstraintError: the grammar cannot be compiled, or the model's tokenizer is not supported.
        """
        if self._tokenizer is None:
            raise ConstraintError(f"the model's tokenizer is not supported: {self._problem}")
        key = hashlib.sha256(grammar.encode()).digest()
        if (compiled := self._find(key)) is not None:  # without waiting for another compilation
            return compiled
        with self._lock:
            if (compiled := self._find(key)) is not None:
                return compiled
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=QUIET, limits=LIMITS)
            if matcher.is_error():
                raise ConstraintError(matcher.get_error())
            constraint = Constraint(self, key, matcher, marks or {})
            self._try_start(constraint)
            self._compiled[key] = constraint
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
            return constraint

    def _find(self, key: bytes) -> Constraint | None:
        """Return a constraint that is kept."""
        # It may be dropped at any time: this method and `forget` do not take the lock.
        if (compiled := self._compiled.get(key)) is not None:
            with suppress(KeyError):
                self._compiled.move_to_end(key)
        return compiled

    def _try_start(self, constraint: Constraint) -> None:
        """Raise ConstraintError if no answer can start, or an object's first key cannot be generated."""
        state = constraint.start()
        allowed = state.allowed()
        if state.failed:
            raise ConstraintError("the grammar is unsatisfiable")
        for token in self._tokenizer.tokenize_str(OBJECT_START):
            if not allowed[token]:
                return
            state.add(token)
            if state.ended:
                return
            allowed = state.allowed()
            if state.failed:
                raise ConstraintError("the grammar is too complex")

    def control_tokens(self, texts: Iterable[str]) -> dict[str, int]:
        """Return the ids of those texts that are control tokens of the model."""
        if self._tokenizer is None:
            return {}
        tokens = {text: self._tokenizer.tokenize_str(text, parse_special=True) for text in texts}
        return {
            text: ids[0]
            for text, ids in tokens.items()
            if len(ids) == 1 and self._tokenizer.is_special_token(ids[0])
        }

    def forget(self, key: bytes) -> None:
        """Drop a compiled grammar. This does not wait for a compilation."""
        self._compiled.pop(key, None)


class Constraint:
    """A compiled grammar.

    Attributes:
        marks: texts of control tokens that the answer's text keeps, by token id.
    """

    def __init__(
        self,
        compiler: GrammarCompiler,
        key: bytes,
        matcher: llguidance.LLMatcher,
        marks: Mapping[int, str],
    ):
        self.marks = marks
        self._compiler, self._key, self._matcher = compiler, key, matcher

    def start(self) -> AnswerState:
        """Return the state of a new answer."""
        return AnswerState(self._matcher.deep_copy(), self._compiler.vocabulary_size, self._fail)

    def _fail(self) -> None:
        # Answers share the states of the grammar's expressions, whose number is limited.
        self._compiler.forget(self._key)


class AnswerState:
    """Where in its grammar one answer is. Used by one thread at a time.

    Attributes:
        ended: whether the answer is complete and cannot go on.
        failed: whether the grammar has become too complex. The answer cannot go on, and is incomplete.
    """

    def __init__(
        self, matcher: llguidance.LLMatcher, vocabulary_size: int, on_failure: Callable[[], None]
    ):
        self.ended = False
        self.failed = False
        self._matcher = matcher
        self._vocabulary_size = vocabulary_size
        self._on_failure = on_failure
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocabulary_size)

    def allowed(self) -> np.ndarray:
        """Return which tokens can come next: bool, one value per token of the vocabulary."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        bits = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")
        allowed = bits[: self._vocabulary_size].view(bool)
        if self._matcher.is_error() or not allowed.any():
            self._fail()
        return allowed

    def add(self, token: int) -> None:
        """Add the next token, which is not an end token."""
        if not self._matcher.consume_token(token):
            self._fail()
        elif self._matcher.is_stopped():
            self.ended = self._matcher.is_accepting()
            if not self.ended:
                self._fail()

    def _fail(self) -> None:
        self.failed = True
        self._on_failure()
