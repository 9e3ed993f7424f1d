"""A model as the judge: scores by rubric, and comparisons of two answers.

The judge is an `Ask`: `Phi3Client.chat`, or any function with its arguments. If an answer of the judge
cannot be parsed, the judge is asked once more. If the second answer cannot be parsed either, the verdict
is unscored and keeps the texts: it is never a 0 and never an exception. Errors of the endpoint are the
client's errors and are not caught.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from ..client import Message, Params, Reply, Usage, break_template_tokens
from ..errors import BadRequestError, ConfigError
from .readings import SCORE, WINNER, Scale, read_verdict, weighted_score
from .rubrics import (
    ANSWER,
    ANSWER_B,
    Rubric,
    comparison_prompt,
    grading_prompt,
    missing_fields,
)

Ask = Callable[[list[Message], Params], Reply]  # asks the judge, for example `Phi3Client.chat`

SCORED, UNPARSED, SKIPPED = "scored", "unparsed", "skipped"
TIE = "tie"
LOGPROBS = {"logprobs": True, "top_logprobs": 20}
RETRY_TOKENS = 32  # enough for `{"winner": "tie"}` and some blanks


@dataclass(frozen=True)
class JudgeOptions:
    """How to ask the judge.

    Attributes:
        samples: number of the judge's answers per verdict. A single one is greedy; several are sampled,
            each with a different seed.
        temperature: sampling temperature if there are several samples; above 0.
        seed: seed of the first sample; the following ones count up from it.
        max_new_tokens: maximum number of tokens of an answer.

    Raises:
        ConfigError: `samples` is not a positive whole number, or several samples are greedy.
    """

    samples: int = 1
    temperature: float = 0.7
    seed: int = 0
    max_new_tokens: int = 192

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise ConfigError(
                f"samples is {self.samples!r}, but must be a whole number of at least 1"
            )
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"samples is {self.samples}, but temperature is 0",
                hint="Greedy answers are all the same: raise the temperature, or take one sample.",
            )

    def params(self) -> list[Params]:
        """Return the generation parameters of each sample."""
        if self.samples == 1:
            return [Params(max_new_tokens=self.max_new_tokens, temperature=0)]
        return [
            Params(
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=self.seed + number,
            )
            for number in range(self.samples)
        ]


class Sample(TypedDict):
    """One answer of the judge: the parsed value, and the judge's texts (two after a second attempt)."""

    value: str | None
    score: float | None
    weighted: bool
    reason: str | None
    texts: list[str]


class Verdict(TypedDict):
    """The score of one answer by one rubric, ready for JSON.

    `status` is `scored`, `unparsed` (no sample could be parsed) or `skipped` (the line lacks a field that
    the rubric needs; `reason` names it). `spread` is the standard deviation of two or more samples.
    `usage` is None if the endpoint does not report tokens.
    """

    score: float | None
    status: str
    spread: float | None
    reason: str | None
    samples: list[Sample]
    calls: int
    usage: dict[str, int] | None


class Preference(TypedDict):
    """The better one of two answers, ready for JSON.

    `winner` is `answer`, `answer_b`, `tie` or None. `agreed` is whether both orders gave the same winner;
    if they did not, the result is a tie. The other fields are those of `Verdict`; `samples` has the order
    A–B first, then B–A.
    """

    winner: str | None
    status: str
    agreed: bool | None
    reason: str | None
    samples: list[Sample]
    calls: int
    usage: dict[str, int] | None


class AskWithLogprobs:
    """An `Ask` that requests log probabilities, until the endpoint has refused them once.

    Attributes:
        refused: whether the endpoint has refused them.
    """

    def __init__(self, ask: Ask) -> None:
        self.refused = False
        self._ask = ask

    def __call__(self, messages: list[Message], params: Params) -> Reply:
        if self.refused:
            return self._ask(messages, params)
        try:
            return self._ask(messages, replace(params, extra={**params.extra, **LOGPROBS}))
        except BadRequestError:
            # The log probabilities are the cause only if the same request succeeds without them.
            reply = self._ask(messages, params)
            self.refused = True
            return reply


class _CountingAsk:
    """An `Ask` that counts its calls and their tokens."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._usages: list[Usage | None] = []

    def __call__(self, messages: list[Message], params: Params) -> Reply:
        reply = self._ask(messages, params)
        self._usages.append(reply.usage)
        return reply

    @property
    def calls(self) -> int:
        return len(self._usages)

    @property
    def usage(self) -> dict[str, int] | None:
        reported = [usage for usage in self._usages if usage]
        if not reported:
            return None
        prompt = sum(usage.prompt_tokens for usage in reported)
        return Usage(prompt, sum(usage.completion_tokens for usage in reported)).as_dict()


def judge_answer(
    ask: Ask, rubric: Rubric, fields: Mapping[str, str], options: JudgeOptions = JudgeOptions()
) -> Verdict:
    """Score `fields["answer"]` by a rubric.

    Args:
        ask: asks the judge; see `AskWithLogprobs` for probability-weighted scores.
        rubric: one of `RUBRICS`.
        fields: `answer`, and the fields that the rubric needs: `question`, `ground_truth`, `context`.
        options: how to ask.

    Raises:
        Phi3Error: the endpoint failed. An answer that cannot be parsed does not raise.
    """
    if missing := missing_fields(rubric, fields):
        return Verdict(
            score=None,
            status=SKIPPED,
            spread=None,
            reason=_missing_reason(missing),
            samples=[],
            calls=0,
            usage=None,
        )
    counted = _CountingAsk(ask)
    messages = grading_prompt(rubric, fields)
    samples = [_sample(counted, messages, SCORE, params) for params in options.params()]
    scores = [s["score"] for s in samples if s["score"] is not None]
    return Verdict(
        score=statistics.fmean(scores) if scores else None,
        status=SCORED if scores else UNPARSED,
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        reason=next((s["reason"] for s in samples if s["score"] is not None), None),
        samples=samples,
        calls=counted.calls,
        usage=counted.usage,
    )


def read_replies(rubric: Rubric, fields: Mapping[str, str], replies: Sequence[str]) -> Verdict:
    """Return the verdict of a judge that has replied already.

    Args:
        rubric: the rubric.
        fields: as in `judge_answer`.
        replies: the judge's reply, and the reply of the second attempt if there was one.
    """
    texts = iter(replies)
    return judge_answer(lambda messages, params: Reply(next(texts, "")), rubric, fields)


def judge_pair(
    ask: Ask, rubric: Rubric, fields: Mapping[str, str], options: JudgeOptions = JudgeOptions()
) -> Preference:
    """Decide which of `fields["answer"]` and `fields["answer_b"]` is better, in both orders, greedily.

    Arguments and exceptions are those of `judge_answer`; `options.samples` has no effect.
    """
    if missing := missing_fields(rubric, fields):
        return Preference(
            winner=None,
            status=SKIPPED,
            agreed=None,
            reason=_missing_reason(missing),
            samples=[],
            calls=0,
            usage=None,
        )
    counted = _CountingAsk(ask)
    (params,) = replace(options, samples=1).params()
    samples, winners = [], []
    for first, second in ((ANSWER, ANSWER_B), (ANSWER_B, ANSWER)):
        prompt = comparison_prompt(rubric, fields, first, second)
        sample = _sample(counted, prompt, WINNER, params)
        samples.append(sample)
        winners.append({"a": first, "b": second, TIE: TIE, None: None}[sample["value"]])
    parsed = None not in winners
    agreed = winners[0] == winners[1]
    return Preference(
        winner=(winners[0] if agreed else TIE) if parsed else None,
        status=SCORED if parsed else UNPARSED,
        agreed=agreed if parsed else None,
        reason=samples[0]["reason"],
        samples=samples,
        calls=counted.calls,
        usage=counted.usage,
    )


def _missing_reason(missing: Sequence[str]) -> str:
    return "the line has no " + " and no ".join(f"`{name}`" for name in missing)


def _sample(ask: Ask, messages: list[Message], scale: Scale, params: Params) -> Sample:
    """Ask the judge; if the answer cannot be parsed, ask once more for the value only."""
    reply = ask(messages, params)
    reading, texts = read_verdict(reply.text, scale), [reply.text]
    if reading.value is None:
        first_answer = break_template_tokens(reply.text).strip() or "(nothing)"
        retry: list[Message] = [
            *messages,
            {"role": "assistant", "content": first_answer},
            {"role": "user", "content": scale.retry_request},
        ]
        max_new_tokens = min(params.max_new_tokens or RETRY_TOKENS, RETRY_TOKENS)
        reply = ask(retry, replace(params, max_new_tokens=max_new_tokens))
        reading = replace(read_verdict(reply.text, scale), reason=reading.reason)
        texts.append(reply.text)
    score = float(reading.value) if reading.value and scale is SCORE else None
    weighted = weighted_score(reply.raw, int(score)) if score else None
    return Sample(
        value=reading.value,
        score=score if weighted is None else weighted,
        weighted=weighted is not None,
        reason=reading.reason,
        texts=texts,
    )
