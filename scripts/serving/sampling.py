"""Chooses the next token of an answer from the model's logits, as the request's parameters say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from constraints import Constraint


@dataclass(frozen=True)
class GenerationParams:
    """How to generate an answer.

    Attributes:
        max_new_tokens: tokens that the answer may have; None for the rest of the context window.
        do_sample: whether tokens are sampled; otherwise the most likely token is taken.
        temperature: sampling temperature, above 0. Has an effect only with `do_sample`.
        top_p: probability mass that tokens are sampled from. Has an effect only with `do_sample`.
        top_k: number of tokens that are sampled from; 0 for all. Has an effect only with `do_sample`.
        repetition_penalty: divides the positive logits of all tokens of the prompt and the answer,
            and multiplies the negative ones. 1 has no effect.
        frequency_penalty: is subtracted from a token's logit once per occurrence in the answer.
        presence_penalty: is subtracted once from the logit of each token of the answer.
        logit_bias: numbers that are added to the logits of tokens, by token id.
        logprobs: number of alternatives that are reported with each token; None for no report.
        stop: strings that end the answer. The answer does not include them.
        seed: seed of the sampling; None for a random one. Has an effect only with `do_sample`.
        constraint: the grammar of the answer; None for any text.
    """

    max_new_tokens: int | None = 128
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class TokenLogprobs:
    """The probability of a generated token, before penalties, biases and temperature.

    Attributes:
        token: the token.
        logprob: the natural logarithm of its probability.
        top: the most likely tokens in its place, with theirs, the most likely one first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        params: how to generate the answer.
        tokens: the prompt and, as it grows, the answer.
        index: index of the prompt in its request. Together with the seed it determines what is
            sampled, regardless of the other rows in the batch.
    """

    def __init__(self, params: GenerationParams, tokens: Sequence[int], index: int):
        self.logprobs: list[TokenLogprobs] = []
        self._params = params
        self._tokens = tokens
        self._counted = len(
            tokens
        )  # tokens that the penalties have counted, or that are the prompt's
        self._occurrences: np.ndarray | None = None
        self._biased = np.array(list(params.logit_bias), np.int64)
        self._biases = np.array(list(params.logit_bias.values()), np.float64)
        self._seed = None if params.seed is None else [params.seed % 2**64, index]
        self._random: np.random.Generator | None = None
        self._penalized = params.repetition_penalty != 1 or bool(
            params.frequency_penalty or params.presence_penalty
        )

    @property
    def needs_logits(self) -> bool:
        """Whether a token depends on more than which one is the most likely."""
        params = self._params
        adjusted = self._penalized or bool(params.logit_bias)
        return params.do_sample or adjusted or params.logprobs is not None

    def choose(self, logits: np.ndarray, allowed: np.ndarray | None = None) -> int:
        """Choose the next token.

        Args:
            logits: float32, one value per token of the vocabulary.
            allowed: bool, whether the token can be chosen; by default all can.
        """
        adjusted = self._adjust(logits)
        if allowed is not None:
            adjusted = np.where(allowed, adjusted, -np.inf)
        token = self._draw(adjusted) if self._params.do_sample else int(adjusted.argmax())
        if self._params.logprobs is not None:
            self.logprobs.append(token_logprobs(logits, token, self._params.logprobs))
        return token

    def _adjust(self, logits: np.ndarray) -> np.ndarray:
        """Return the logits with the penalties and the biases."""
        params = self._params
        if not (self._penalized or params.logit_bias):
            return logits
        adjusted = logits.astype(np.float64)
        if self._penalized:
            self._penalize(adjusted)
        adjusted[self._biased] += self._biases
        return adjusted

    def _penalize(self, logits: np.ndarray) -> None:
        """Change the logits of the tokens that the prompt and the answer contain."""
        params = self._params
        if self._occurrences is None:
            self._occurrences = np.zeros(len(logits))  # in the answer
            self._seen = np.zeros(len(logits), bool)
            self._seen[self._tokens] = True
        for token in self._tokens[self._counted :]:
            self._occurrences[token] += 1
            self._seen[token] = True
        self._counted = len(self._tokens)
        seen = np.flatnonzero(self._seen)
        penalty, values, occurrences = (
            params.repetition_penalty,
            logits[seen],
            self._occurrences[seen],
        )
        values = np.where(values > 0, values / penalty, values * penalty)
        values -= params.frequency_penalty * occurrences
        values -= params.presence_penalty * (occurrences > 0)
        logits[seen] = values

    def _draw(self, logits: np.ndarray) -> int:
        params = self._params
        if self._random is None:
            self._random = np.random.default_rng(self._seed)
        # With a temperature of almost 0, all logits but the largest become -inf.
        with np.errstate(over="ignore"):
            scaled = (logits.astype(np.float64) - logits.max()) / params.temperature
        if 0 < params.top_k < len(scaled):
            scaled[scaled < np.partition(scaled, -params.top_k)[-params.top_k]] = -np.inf
        probabilities = np.exp(scaled)
        probabilities /= probabilities.sum()
        return draw_token(probabilities, params.top_p, self._random.random())


def draw_token(probabilities: np.ndarray, top_p: float, point: float) -> int:
    """Return the token at a point of the distribution, after nucleus (top-p) filtering.

    Args:
        probabilities: float64, one value per token of the vocabulary; their sum is 1.
        top_p: only the most likely tokens that together reach this probability are drawn.
        point: where to look in the cumulative distribution, from 0 up to but not including 1.
    """
    # All tokens below this probability together have less than 1 - top_p, so the others reach top_p
    # without them. Dropping them first avoids sorting the whole vocabulary.
    candidates = np.flatnonzero(probabilities > (1 - top_p) / len(probabilities))
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    cumulative = np.cumsum(probabilities[order])
    threshold = top_p * cumulative[-1] if top_p == 1 else top_p
    count = min(int(np.searchsorted(cumulative, threshold)) + 1, len(order))
    index = int(np.searchsorted(cumulative, point * cumulative[count - 1], "right"))
    return int(order[min(index, count - 1)])


def token_logprobs(logits: np.ndarray, token: int, alternatives: int) -> TokenLogprobs:
    """Return the log probabilities of a token and of the most likely tokens."""
    shifted = logits.astype(np.float64) - logits.max()
    logprobs = shifted - np.log(np.exp(shifted).sum())
    count = min(alternatives, len(logprobs))
    best = np.argpartition(logprobs, -count)[-count:] if count else np.array([], int)
    best = best[np.argsort(-logprobs[best])]
    top = tuple((int(other), float(logprobs[other])) for other in best)
    return TokenLogprobs(token, float(logprobs[token]), top)
