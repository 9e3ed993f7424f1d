"""Compute the summary of a review: ratings by run, choices, and agreement with the judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phi3_tools.evaluation import mean_of

from ..comparison import sign_test
from .agreement import cohen_kappa, confusion_table
from .panel import judges_by_label, panel_agreements, panel_scores
from .records import CHOICE, EDIT, FLAG, HIGHEST, LOWEST, RATING, Judgement
from .results import (
    VERDICTS,
    Disagreement,
    JudgeAgreement,
    PairChoices,
    ReviewSummary,
    RunRatings,
)
from .subjects import ReviewedData, ReviewedRun, Verdict

MAX_DISAGREEMENTS = 10
PANEL = "panel (mean of the judges)"
_WINNERS = {"answer": 0, "answer_b": 1, "tie": 2}  # of a pairwise judge -> index into `VERDICTS`
CATEGORIES = HIGHEST - LOWEST + 1


def summarise_review(
    runs: Sequence[ReviewedRun],
    data: ReviewedData,
    judgements: Sequence[Judgement],
    rubric: str,
) -> ReviewSummary:
    """Return the summary of a review.

    Args:
        runs: the runs.
        data: the lines of their data.
        judgements: the judgements that hold.
        rubric: the rubric of the ratings and choices that are summarised.
    """
    by_rubric = [each for each in judgements if each.rubric in (None, rubric)]
    judges = [
        *_rubric_agreements(runs, data, by_rubric, rubric),
        *_pair_agreements(runs, by_rubric, data),
    ]
    return ReviewSummary(
        rubric=rubric,
        lines=len(data.rows),
        runs=[_run_ratings(run, by_rubric) for run in runs],
        choices=_pair_choices(runs, by_rubric),
        judges=judges,
        panels=panel_agreements(runs),
    )


def ratings_of(judgements: Sequence[Judgement], run: ReviewedRun, rubric: str) -> dict[int, int]:
    """Return the ratings of a run by a rubric: line -> rating."""
    return {
        each.line: each.rating
        for each in judgements
        if each.kind == RATING
        and each.rating is not None
        and each.rubric == rubric
        and each.runs == (run.location.name,)
    }


# -- the reviewer ----------------------------------------------------------------------------------


def _run_ratings(run: ReviewedRun, judgements: Sequence[Judgement]) -> RunRatings:
    own = [each for each in judgements if each.runs == (run.location.name,)]
    ratings = [each.rating for each in own if each.kind == RATING and each.rating is not None]
    mean = mean_of([float(rating) for rating in ratings]) if ratings else None
    return RunRatings(
        run=run.title,
        rated=len(ratings),
        mean=mean.mean if mean else None,
        stderr=mean.stderr if mean and len(ratings) > 1 else None,
        edited=sum(each.kind == EDIT for each in own),
        flagged=sum(each.kind == FLAG for each in own),
    )


def _pair_choices(
    runs: Sequence[ReviewedRun], judgements: Sequence[Judgement]
) -> list[PairChoices]:
    """Count the choices of each pair. The best of three wins against both others."""
    choices = []
    for position, first in enumerate(runs):
        for second in runs[position + 1 :]:
            names = (first.location.name, second.location.name)
            preferred = [
                each.preferred
                for each in judgements
                if each.kind == CHOICE and set(names) <= set(each.runs)
            ]
            wins = (preferred.count(names[0]), preferred.count(names[1]))
            if preferred:
                ties = preferred.count(None)
                titles = (first.title, second.title)
                choices.append(PairChoices(titles, wins, ties, sign_test(*wins)))
    return choices


# -- the judges ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _JudgedLine:
    """A rated answer, and the score that a judge gave it."""

    run: ReviewedRun
    line: int
    rating: int
    score: float
    reason: str | None


def _rubric_agreements(
    runs: Sequence[ReviewedRun],
    data: ReviewedData,
    judgements: Sequence[Judgement],
    rubric: str,
) -> Iterator[JudgeAgreement]:
    groups = {
        label: [(run, judge) for run, judge in group if rubric in judge.scores]
        for label, group in judges_by_label(runs).items()
    }
    groups = {label: group for label, group in groups.items() if group}
    for label, group in groups.items():
        lines = [
            _JudgedLine(run, line, rating, score, judge.reasons.get(rubric, {}).get(line))
            for run, judge in group
            for line, rating in ratings_of(judgements, run, rubric).items()
            if (score := judge.scores[rubric].get(line)) is not None
        ]
        yield _agreement(label, rubric, lines, data)
    means = {run.location.name: panel_scores(run, rubric) for run in runs}
    if any(means.values()):
        lines = [
            _JudgedLine(run, line, rating, means[run.location.name][line], None)
            for run in runs
            for line, rating in ratings_of(judgements, run, rubric).items()
            if line in means[run.location.name]
        ]
        yield _agreement(PANEL, rubric, lines, data)


def _agreement(
    label: str, rubric: str, lines: Sequence[_JudgedLine], data: ReviewedData
) -> JudgeAgreement:
    # A score with a fraction, of several samples or of probabilities, is rounded, halves upwards.
    pairs = [(each.rating - LOWEST, int(each.score + 0.5) - LOWEST) for each in lines]
    table = confusion_table(pairs, CATEGORIES)
    by_line: dict[int, list[tuple[int, int]]] = {}
    for each, pair in zip(lines, pairs):
        by_line.setdefault(each.line, []).append(pair)
    differences = [each.score - each.rating for each in lines]
    worst = sorted(lines, key=lambda each: (-abs(each.score - each.rating), each.line))
    disagreements = [
        Disagreement(
            line=each.line,
            run=each.run.title,
            question=data.displayed_question(each.line),
            reviewer=str(each.rating),
            judge=f"{each.score:g}" + (f": {each.reason}" if each.reason else ""),
            distance=abs(each.score - each.rating),
        )
        for each in worst[:MAX_DISAGREEMENTS]
        if abs(each.score - each.rating) >= 1
    ]
    return JudgeAgreement(
        judge=label,
        scale=rubric,
        kappa=cohen_kappa(table, quadratic=True, groups=list(by_line.values())),
        categories=tuple(str(LOWEST + index) for index in range(CATEGORIES)),
        table=table,
        bias=sum(differences) / len(differences) if differences else None,
        disagreements=disagreements,
    )


def _pair_agreements(
    runs: Sequence[ReviewedRun], judgements: Sequence[Judgement], data: ReviewedData
) -> Iterator[JudgeAgreement]:
    """Compare the choices with the verdicts of pairwise judges over the same two answers."""
    choices = [each for each in judgements if each.kind == CHOICE]
    titles = " / ".join(run.title for run in runs)
    for judge in (judge for run in runs for judge in run.judges if judge.verdicts):
        pairs = {
            choice.line: (reviewer, _WINNERS[verdict.winner])
            for choice in choices
            if (verdict := judge.verdicts.get(choice.line))
            and (reviewer := _choice_as_verdict(choice, verdict)) is not None
        }
        table = confusion_table(list(pairs.values()), len(VERDICTS))
        disagreements = [
            Disagreement(
                line,
                titles,
                data.displayed_question(line),
                VERDICTS[reviewer],
                VERDICTS[judged],
                1.0,
            )
            for line, (reviewer, judged) in pairs.items()
            if reviewer != judged
        ]
        yield JudgeAgreement(
            judge=judge.label,
            scale="pairs",
            kappa=cohen_kappa(table, quadratic=False),
            categories=VERDICTS,
            table=table,
            bias=None,
            disagreements=disagreements[:MAX_DISAGREEMENTS],
        )


def _choice_as_verdict(choice: Judgement, verdict: Verdict) -> int | None:
    """Return a choice as index into `VERDICTS`, in the order in which a judge saw the two answers.

    None if the choice is not between these two answers.
    """
    answers = (verdict.answer, verdict.answer_b)
    texts = [answer.text for answer in choice.answers]
    if len(texts) != 2 or sorted(texts) != sorted(answers):
        return None
    if choice.chosen is None:
        return VERDICTS.index("tie")
    return answers.index(choice.chosen)
