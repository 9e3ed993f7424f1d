"""Ratings of reviewers as a score of a run, which `phi3 compare` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..comparison import Metric, Thresholds
from ..errors import OpsError
from ..runs import ScoredRun, answers_location
from .records import HIGHEST, LOWEST, RATING, Judgement, latest_judgements
from .store import read_file, review_file
from .subjects import answer_text

METRIC = "review"


def is_review_metric(name: str) -> bool:
    """Return whether a score is made of ratings."""
    return name == METRIC or name.startswith(f"{METRIC}.")


def with_review_metrics(thresholds: Thresholds, names: Iterable[str]) -> Thresholds:
    """Return the thresholds, with the range of each score that is made of ratings.

    A score that the thresholds have is not changed. The ratings are of a sample of the lines, so a line
    without a rating does not count as a line without a score.

    Args:
        thresholds: the thresholds.
        names: names of the scores that are compared or gated.
    """
    added = {
        name: Metric(range=(LOWEST, HIGHEST), sampled=True)
        for name in names
        if is_review_metric(name) and name not in thresholds.metrics
    }
    return thresholds.model_copy(update={"metrics": {**thresholds.metrics, **added}})


def add_ratings(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Return the runs with the score `METRIC`: the rating of each line that was reviewed.

    The score is `review.RUBRIC` for each rubric. It is also `review` if the runs were rated by one rubric
    only.

    Args:
        runs: the runs; `name` is the reference by which they were loaded.

    Raises:
        OpsError: no line of a run was rated.
    """
    ratings = [_ratings(run) for run in runs]
    rubrics = {each.rubric for found in ratings for each in found}
    return [_with_ratings(run, found, len(rubrics) == 1) for run, found in zip(runs, ratings)]


def _ratings(run: ScoredRun) -> list[Judgement]:
    location = answers_location(run.name)
    judgements = latest_judgements(read_file(review_file(location)))
    answers = run.answers
    ratings = [
        each
        for each in judgements
        if each.kind == RATING and answer_text(answers.get(each.line, {})) == each.answer
    ]
    if not ratings:
        raise OpsError(f"no present answer of {run.name} was rated", f"phi3 review {run.name}")
    return ratings


def _with_ratings(run: ScoredRun, ratings: Sequence[Judgement], one_rubric: bool) -> ScoredRun:
    rows: dict[int, dict[str, Any]] = {line: dict(row) for line, row in run.scored.rows.items()}
    for rating in ratings:
        row = rows.setdefault(rating.line, {})
        row[f"{METRIC}.{rating.rubric}"] = rating.rating
        if one_rubric:
            row[METRIC] = rating.rating
    return replace(run, scored=replace(run.scored, rows=rows))
