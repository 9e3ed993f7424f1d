"""A model as the judge: scores by rubric, two answers compared, and what a batch of verdicts says.

Nothing here knows how the judge is reached: an `Ask` is `Phi3Client.chat`, or anything of its form. What
cannot be read is asked for once more and then left unscored, with the words kept: it is never a 0, and
never an exception. What the endpoint fails at is the client's own error, and passes through.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from ..client import Message, Params, Reply, Usage
from ..errors import BadRequestError, ConfigError
from .metrics import mean_of
from .readings import SCORE, WINNER, Scale, read_verdict, weighted_score
from .rubrics import ANSWER, ANSWER_B, BEST, WORST, Rubric, comparing, defused, grading, missing

Ask = Callable[[list[Message], Params], Reply]

SCORED, UNPARSED, SKIPPED = "scored", "unparsed", "skipped"
TIE = "tie"
LOGPROBS = {"logprobs": True, "top_logprobs": 20}
AGAIN_TOKENS = 32  # enough for `{"winner": "tie"}` and some blanks


@dataclass(frozen=True)
class Options:
    """How to ask.

    Attributes:
        samples: answers of the judge for one verdict. One is greedy; more are drawn, each with a seed of
            its own.
        temperature: of the samples where there are several; above 0.
        seed: of the first sample.
        max_new_tokens: tokens of the judge's answer at most.
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
        """The parameters of each sample."""
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
    """One answer of the judge: what was read from it, and every text it took."""

    value: str | None
    score: float | None
    weighted: bool
    reason: str | None
    texts: list[str]


class Verdict(TypedDict):
    """A rubric's score of one answer, ready for JSON.

    `status` is `scored`, `unparsed` (no sample could be read) or `skipped` (a field that the rubric needs
    is not there; `reason` names it). `spread` is the standard deviation of two or more samples. `usage`
    is None where the endpoint does not tell.
    """

    score: float | None
    status: str
    spread: float | None
    reason: str | None
    samples: list[Sample]
    calls: int
    usage: dict[str, int] | None


class Preference(TypedDict):
    """Which of two answers is better, ready for JSON.

    `winner` is `answer`, `answer_b`, `tie` or None. `agreed` tells whether both orders said the same;
    where they did not, it is a tie. The rest is as in `Verdict`, the samples being A–B and B–A.
    """

    winner: str | None
    status: str
    agreed: bool | None
    reason: str | None
    samples: list[Sample]
    calls: int
    usage: dict[str, int] | None


class WithLogprobs:
    """An `Ask` that asks for log probabilities, until the endpoint has refused them once."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.refused = False

    def __call__(self, messages: list[Message], params: Params) -> Reply:
        if self.refused:
            return self.ask(messages, params)
        try:
            return self.ask(messages, replace(params, extra={**params.extra, **LOGPROBS}))
        except BadRequestError:
            # Only an endpoint that takes the same request without them has refused *them*.
            reply = self.ask(messages, params)
            self.refused = True
            return reply


class _Counted:
    """An `Ask` that adds up what it took."""

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
        known = [usage for usage in self._usages if usage]
        if not known:
            return None
        prompt = sum(usage.prompt_tokens for usage in known)
        return Usage(prompt, sum(usage.completion_tokens for usage in known)).as_dict()


# -- one line --------------------------------------------------------------------------------------


def grade(
    ask: Ask, rubric: Rubric, fields: Mapping[str, str], options: Options = Options()
) -> Verdict:
    """A rubric's score of `fields["answer"]`.

    Args:
        ask: calls the judge; see `WithLogprobs` for probability-weighted scores.
        rubric: see `phi3_tools.rubrics.RUBRICS`.
        fields: `answer`, and what the rubric reads: `question`, `ground_truth`, `context`.
        options: how to ask.

    Raises:
        Phi3Error: the endpoint's failure. What cannot be read does not raise.
    """
    if lacking := missing(rubric, fields):
        return Verdict(
            score=None,
            status=SKIPPED,
            spread=None,
            reason=_no(lacking),
            samples=[],
            calls=0,
            usage=None,
        )
    counted = _Counted(ask)
    messages = grading(rubric, fields)
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


def compare(
    ask: Ask, rubric: Rubric, fields: Mapping[str, str], options: Options = Options()
) -> Preference:
    """Which of `fields["answer"]` and `fields["answer_b"]` is better, asked in both orders, greedily.

    Takes and raises what `grade` does; `options.samples` has no meaning here.
    """
    if lacking := missing(rubric, fields):
        return Preference(
            winner=None,
            status=SKIPPED,
            agreed=None,
            reason=_no(lacking),
            samples=[],
            calls=0,
            usage=None,
        )
    counted = _Counted(ask)
    (params,) = replace(options, samples=1).params()
    samples, winners = [], []
    for order in ((ANSWER, ANSWER_B), (ANSWER_B, ANSWER)):
        sample = _sample(counted, comparing(rubric, fields, *order), WINNER, params)
        samples.append(sample)
        slots = {"a": order[0], "b": order[1], TIE: TIE, None: None}
        winners.append(slots[sample["value"]])
    told = None not in winners
    agreed = winners[0] == winners[1]
    return Preference(
        winner=(winners[0] if agreed else TIE) if told else None,
        status=SCORED if told else UNPARSED,
        agreed=agreed if told else None,
        reason=samples[0]["reason"],
        samples=samples,
        calls=counted.calls,
        usage=counted.usage,
    )


def _no(lacking: Sequence[str]) -> str:
    return "the line has no " + " and no ".join(f"`{name}`" for name in lacking)


def _sample(ask: Ask, messages: list[Message], scale: Scale, params: Params) -> Sample:
    """One answer of the judge; where it cannot be read, a second one to a plainer question."""
    reply = ask(messages, params)
    reading, texts = read_verdict(reply.text, scale), [reply.text]
    if reading.value is None:
        said = defused(reply.text).strip() or "(nothing)"
        again: list[Message] = [
            *messages,
            {"role": "assistant", "content": said},
            {"role": "user", "content": scale.again},
        ]
        short = min(params.max_new_tokens or AGAIN_TOKENS, AGAIN_TOKENS)
        reply = ask(again, replace(params, max_new_tokens=short))
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


# -- a batch ---------------------------------------------------------------------------------------


def summarise(lines: Sequence[Mapping[str, Verdict] | None]) -> dict[str, float]:
    """The metrics of a batch: for each rubric NAME of its verdicts

    | metric | what it is |
    |---|---|
    | `NAME` | mean over the scored lines; not there where none is scored |
    | `NAME_stderr` | its standard error |
    | `NAME_low`, `NAME_high` | the mean if every unscored line had the worst, the best score |
    | `NAME_scored`, `NAME_unparsed`, `NAME_skipped` | lines |
    | `NAME_unparsed_rate` | of the lines that were judged, those that could not be read |

    and `lines`, `failures`, `judge_calls`, `judge_tokens`. Unscored lines are the unparsed ones and the
    failures: their score is just not known. A skipped line is no part of a rubric.

    Args:
        lines: rubric's name -> verdict for each line; None for a line that failed.
    """
    judged = [line for line in lines if line]
    failures = len(lines) - len(judged)
    metrics: dict[str, float] = {"lines": len(lines), "failures": failures}
    for name in dict.fromkeys(name for line in judged for name in line):
        verdicts = [line[name] for line in judged if name in line]
        metrics |= _named(name, _rubric_metrics(verdicts, failures))
    return metrics | _cost([verdict for line in judged for verdict in line.values()])


def summarise_pairs(lines: Sequence[Preference | None]) -> dict[str, float]:
    """The metrics of a batch of comparisons, from the side of `answer`.

    `wins`, `losses`, `ties`, `unparsed`, `skipped`, `scored` and `disagreements` count lines.
    `win_rate` counts a tie as half a win, over the scored lines; `win_rate_low` and `win_rate_high` are
    what it could be if every unparsed or failed line had been lost, or won. `disagreement_rate` is how
    often the judge changed its mind with the order. Rates over no lines are not there.

    Args:
        lines: a preference for each line; None for a line that failed.
    """
    judged = [line for line in lines if line]
    failures = len(lines) - len(judged)
    count = _counts(judged)
    winners = [line["winner"] for line in judged]
    disagreements = sum(line["agreed"] is False for line in judged)
    metrics: dict[str, float] = {"lines": len(lines), "failures": failures, **count}
    metrics |= {"wins": winners.count(ANSWER), "losses": winners.count(ANSWER_B)}
    metrics |= {"ties": winners.count(TIE), "disagreements": disagreements}
    points = [{ANSWER: 1.0, TIE: 0.5, ANSWER_B: 0.0}[w] for w in winners if w]
    metrics |= _named("win_rate", _bounded(points, count[UNPARSED], failures, (0.0, 1.0)))
    if points:
        metrics["disagreement_rate"] = disagreements / len(points)
    return metrics | _unparsed_rate(count) | _cost(judged)


def _rubric_metrics(verdicts: Sequence[Verdict], failures: int) -> dict[str, float]:
    count = _counts(verdicts)
    scores = [v["score"] for v in verdicts if v["score"] is not None]
    bounded = _bounded(scores, count[UNPARSED], failures, (WORST, BEST))
    return bounded | count | _unparsed_rate(count)


def _bounded(
    scores: Sequence[float], unparsed: int, failures: int, ends: tuple[float, float]
) -> dict[str, float]:
    """Mean and standard error of what is known, and what the mean could be with the rest."""
    metrics: dict[str, float] = {}
    if scores:
        mean = mean_of(scores)
        metrics |= {"": mean.mean, "stderr": mean.stderr}
    if scores or unparsed:  # else nobody was asked, and nothing failed that could have been scored
        for name, end in zip(("low", "high"), ends):
            metrics[name] = mean_of([*scores, *[end] * (unparsed + failures)]).mean
    return metrics


def _counts(verdicts: Sequence[Verdict] | Sequence[Preference]) -> dict[str, int]:
    said = [verdict["status"] for verdict in verdicts]
    return {status: said.count(status) for status in (SCORED, UNPARSED, SKIPPED)}


def _unparsed_rate(count: Mapping[str, int]) -> dict[str, float]:
    asked = count[SCORED] + count[UNPARSED]
    return {"unparsed_rate": count[UNPARSED] / asked} if asked else {}


def _named(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{part}" if part else name: value for part, value in metrics.items()}


def _cost(verdicts: Sequence[Verdict] | Sequence[Preference]) -> dict[str, float]:
    known = [verdict["usage"]["total_tokens"] for verdict in verdicts if verdict["usage"]]
    cost: dict[str, float] = {"judge_calls": sum(verdict["calls"] for verdict in verdicts)}
    return cost | ({"judge_tokens": sum(known)} if known else {})
