"""The results of a review: ratings by run, choices, and agreement with judges and among them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .agreement import Agreement

SCHEMA = 1
VERDICTS = ("first", "second", "tie")


@dataclass(frozen=True)
class RunRatings:
    """How a run was rated.

    Attributes:
        run: name that the user gave.
        rated: number of rated answers.
        mean: mean rating; None without ratings.
        stderr: its standard error; None below two ratings.
        edited: number of corrected answers.
        flagged: number of flagged answers.
    """

    run: str
    rated: int
    mean: float | None
    stderr: float | None
    edited: int
    flagged: int


@dataclass(frozen=True)
class PairChoices:
    """How often the reviewer preferred each of two runs.

    Attributes:
        runs: their names, as the user gave them.
        wins: number of choices for each.
        ties: number of lines on which both are equally good.
        p_value: p-value of the exact two-sided sign test.
    """

    runs: tuple[str, str]
    wins: tuple[int, int]
    ties: int
    p_value: float


@dataclass(frozen=True)
class Disagreement:
    """A line on which the reviewer and a judge disagree."""

    line: int
    run: str
    question: str
    reviewer: str
    judge: str
    distance: float


@dataclass(frozen=True)
class JudgeAgreement:
    """How well a judge agrees with the reviewer.

    Attributes:
        judge: name of the judge.
        scale: name of the rubric; `pairs` for a pairwise judge.
        kappa: Cohen's kappa: with quadratic weights for scores, without weights for pairs.
        categories: the categories of the table: 1 to 5, or `VERDICTS`.
        table: how often each pair occurs; rows are the reviewer's categories, columns the judge's.
        bias: mean of the judge's score minus the rating; None for pairs and without lines.
        disagreements: the lines with the largest differences.
    """

    judge: str
    scale: str
    kappa: Agreement
    categories: tuple[str, ...]
    table: list[list[int]]
    bias: float | None
    disagreements: list[Disagreement]


@dataclass(frozen=True)
class PanelAgreement:
    """How well several judges agree: Krippendorff's alpha for interval data.

    Attributes:
        rubric: name of the rubric.
        judges: names of the judges.
        alpha: the agreement; its units are answers that at least two judges scored.
    """

    rubric: str
    judges: tuple[str, ...]
    alpha: Agreement


@dataclass(frozen=True)
class ReviewSummary:
    """The summary of a review.

    Attributes:
        rubric: the rubric of the ratings and choices.
        lines: number of lines of the data.
        runs: how each run was rated.
        choices: the choices between the runs, by pair.
        judges: agreement of each judge, and of the panel, with the reviewer.
        panels: agreement of the judges with each other, by rubric.
    """

    rubric: str
    lines: int
    runs: list[RunRatings]
    choices: list[PairChoices]
    judges: list[JudgeAgreement]
    panels: list[PanelAgreement]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `phi3 review --summary --json` prints."""
        return {"schema": SCHEMA, **asdict(self)}
