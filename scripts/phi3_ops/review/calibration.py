"""Calibration: a monotone map from a judge's scores to the ratings that a reviewer would give.

It is written only if it brings the judge nearer to ratings that were not used to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OpsError
from ..files import load_json_object, write_json
from ..runs import ScoredRun
from .agreement import monotone_means
from .panel import judges_by_label
from .records import Judgement
from .subjects import ReviewedRun, is_number, judge_facts
from .summary import ratings_of

FORMAT, VERSION = "phi3-calibration", 1
LEAST_LINES = 20  # lines with rated and judged answers that a calibration needs
FOLDS = 10  # of the cross-validation


@dataclass(frozen=True)
class Calibration:
    """A map from a judge's scores by one rubric to ratings.

    Attributes:
        rubric: name of the rubric.
        judge: name of the judge for people.
        facts: how the judge's run was made; another judge needs another calibration.
        n: number of answers that the reviewer rated and the judge scored.
        points: scores and the rating that each stands for, both non-decreasing. Between two scores, the
            map is linear; beyond them, it is constant.
        error_before: mean absolute difference of score and rating.
        error_after: the same after the calibration, on answers that were not used to make it
            (cross-validation).
    """

    rubric: str
    judge: str
    facts: dict[str, str]
    n: int
    points: list[tuple[float, float]]
    error_before: float
    error_after: float

    def rating(self, score: float) -> float:
        """Return the rating that a score stands for."""
        return _mapped(self.points, score)


def make_calibration(
    runs: Sequence[ReviewedRun], judgements: Sequence[Judgement], rubric: str
) -> Calibration:
    """Return the calibration of the judge of some reviewed runs.

    Args:
        runs: the runs; they must have one judge with scores by the rubric.
        judgements: the judgements that hold.
        rubric: name of the rubric.

    Raises:
        OpsError: there is no judge or more than one, too few answers are rated, or the calibration does
            not bring the judge nearer to the ratings.
    """
    groups = {
        label: group
        for label, group in judges_by_label(runs).items()
        if any(rubric in judge.scores for _, judge in group)
    }
    if len(groups) != 1:
        available = "; ".join(groups) or "none"
        raise OpsError(
            f"a calibration needs one judge with scores by {rubric}, and the runs have {len(groups)}",
            f"Name its runs with --judge. The judges are: {available}.",
        )
    ((label, group),) = groups.items()
    pairs = [
        (line, judge.scores[rubric][line], float(rating))
        for run, judge in group
        for line, rating in ratings_of(judgements, run, rubric).items()
        if line in judge.scores.get(rubric, {})
    ]
    if (count := len({line for line, _, _ in pairs})) < LEAST_LINES:
        raise OpsError(
            f"the answers to only {count} lines are rated by the reviewer and scored by {label}",
            f"A calibration needs {LEAST_LINES} lines. Rate more answers with phi3 review.",
        )
    lines, scores, ratings = zip(*pairs)
    before = float(np.mean(np.abs(np.subtract(scores, ratings))))
    after = _cross_validated_error(lines, scores, ratings)
    if after >= before:
        raise OpsError(
            f"the calibration would not bring {label} nearer to the ratings: the mean difference is "
            f"{before:.3f} without it and {after:.3f} with it, over {len(pairs)} answers",
            "No file was written. Use the scores as they are, or rate more answers.",
        )
    points = monotone_means(scores, ratings)
    return Calibration(rubric, label, dict(group[0][1].facts), len(pairs), points, before, after)


def _cross_validated_error(
    lines: Sequence[int], scores: Sequence[float], ratings: Sequence[float]
) -> float:
    """Return the mean absolute error of maps on the lines that they were not made from."""
    order = np.random.default_rng(1).permutation(list(dict.fromkeys(lines)))
    errors = []
    for fold in range(FOLDS):
        held_out_lines = set(order[fold::FOLDS].tolist())
        held_out = [index for index, line in enumerate(lines) if line in held_out_lines]
        used = [index for index, line in enumerate(lines) if line not in held_out_lines]
        points = monotone_means([scores[i] for i in used], [ratings[i] for i in used])
        errors += [abs(_mapped(points, scores[index]) - ratings[index]) for index in held_out]
    return float(np.mean(errors))


def _mapped(points: Sequence[tuple[float, float]], score: float) -> float:
    scores, ratings = zip(*points)
    return float(np.interp(score, scores, ratings))


# -- the file --------------------------------------------------------------------------------------


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Write a calibration completely or not at all.

    Raises:
        OpsError: the file exists and is not a calibration, or cannot be written.
    """
    if file.exists():
        read_calibration(file)
    write_json(file, {"format": FORMAT, "version": VERSION, **asdict(calibration)})


def read_calibration(file: Path) -> Calibration:
    """Return the calibration of a file.

    Raises:
        OpsError: the file does not exist, is not a calibration, or is of a newer version.
    """
    fix = "Give a file that `phi3 review --calibrate` wrote."
    try:
        content = load_json_object(file)
        is_newer = content["format"] == FORMAT and content["version"] > VERSION
    except FileNotFoundError as error:
        raise OpsError(f"{file} does not exist", "Check the path.") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OpsError(f"{file} is not a calibration", fix) from error
    if is_newer:
        what = f"{file} was written by a newer version of phi3 (format {content['version']})"
        raise OpsError(what, "Update phi3.")
    try:
        return _calibration(content)
    except (ValueError, LookupError, TypeError) as error:
        raise OpsError(f"{file} is not a calibration: {error}", fix) from error


def _calibration(content: dict[str, Any]) -> Calibration:
    if content["format"] != FORMAT or not content["points"]:
        raise ValueError("`format` or `points` is wrong")
    points = [(float(score), float(rating)) for score, rating in content["points"]]
    if sorted(points) != points or sorted(rating for _, rating in points) != [r for _, r in points]:
        raise ValueError("`points` are not in ascending order")
    return Calibration(
        rubric=str(content["rubric"]),
        judge=str(content["judge"]),
        facts={str(name): str(fact) for name, fact in dict(content["facts"]).items()},
        n=int(content["n"]),
        points=points,
        error_before=float(content["error_before"]),
        error_after=float(content["error_after"]),
    )


def calibrate_run(run: ScoredRun, calibration: Calibration) -> ScoredRun:
    """Return a run of the judge with calibrated ratings in place of its scores.

    Raises:
        OpsError: the run is of another judge, or has no scores by the rubric.
    """
    facts = judge_facts(run)
    for name in {**calibration.facts, **facts}:
        if name != "run" and facts.get(name) != calibration.facts.get(name):
            raise OpsError(
                f"the calibration is for another judge than that of {run.name}: {name} is "
                f"{calibration.facts.get(name)!r} there and {facts.get(name)!r} here",
                "Calibrate this judge with phi3 review --calibrate.",
            )
    rubric = calibration.rubric
    if not any(is_number(row.get(rubric)) for row in run.scored.rows.values()):
        raise OpsError(f"the run {run.name} has no scores by {rubric}", "Give a run of the judge.")
    rows = {
        line: {**row, rubric: calibration.rating(row[rubric])}
        if is_number(row.get(rubric))
        else row
        for line, row in run.scored.rows.items()
    }
    note = f"{calibration.judge}, by {calibration.n} ratings"
    marked = {**run.scored.facts, f"{rubric} calibrated": note}
    return replace(run, scored=replace(run.scored, rows=rows, facts=marked))
