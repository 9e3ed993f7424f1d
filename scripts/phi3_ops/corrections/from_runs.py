"""Pairs from runs: the reference, or the answer of a better run, over the answer of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import exact_match

from ..data import history_of_row, questions_of_row
from ..errors import OpsError
from ..files import read_jsonl
from ..runs import ScoredRun, load_scored_run
from .examples import (
    EQUAL_ANSWERS,
    LOST_LINE,
    NO_QUESTION,
    Example,
    Origin,
    SourceExamples,
    same_text,
)

SOURCE = "run"
ANSWER_COLUMN = "answer"
REFERENCE_COLUMNS = ("ground_truth", "reference", "expected", "answer")
DEFAULT_METRIC = "token_f1"

# Reasons for which a line gives no pair.
FAILED = "failed line"
NO_REFERENCE = "no reference"
RIGHT = "answer equal to the reference"
NOT_LOST = "not lost"
NOT_SCORED = "without a score in both runs"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunSource:
    """Which runs give pairs.

    Attributes:
        run: the run whose lost lines give pairs.
        against: the run that it is compared with; None compares with the reference only.
        data: the data file, if the runs do not record it.
        metric: the score that decides which lines are lost; None takes `DEFAULT_METRIC`, or the first
            score that both runs have.
    """

    run: str
    against: str | None = None
    data: Path | None = None
    metric: str | None = None


def examples_of_run(source: RunSource) -> SourceExamples:
    """Return a pair for each line that a run lost.

    Without another run, a line is lost if the answer differs from the reference in more than case,
    punctuation and articles. Against another run, a line is lost if the other run has the better score.
    The better answer of the pair is the reference, or the other run's answer if the data has none.

    Raises:
        OpsError: a run does not exist, or the two have different data or no common score.
    """
    run = load_scored_run(source.run, source.data)
    other = load_scored_run(source.against, source.data or run.data) if source.against else None
    rows = read_jsonl(run.data)
    is_lost = _comparison(run, other, source.metric) if other else _differs_from_reference
    unused: Counter[str] = Counter()
    examples: list[Example] = []
    for line, row in enumerate(rows):
        example = _example(line, row, run, other, is_lost)
        if isinstance(example, Example):
            examples.append(example)
        else:
            unused[example] += 1
    return SourceExamples(SOURCE, run.name, len(rows), examples, unused)


LineTest = Callable[
    [int, str, str | None], str | None
]  # line, answer, reference -> reason, if not lost


def _example(
    line: int, row: Row, run: ScoredRun, other: ScoredRun | None, is_lost: LineTest
) -> Example | str:
    """Return the pair of a line, or the reason if there is none."""
    questions, answer = questions_of_row(row), _answer(run, line, row)
    if not questions:
        return NO_QUESTION
    if not answer:
        return FAILED
    reference = _reference(row)
    if reason := is_lost(line, answer, reference):
        return reason
    better = reference or (_answer(other, line, row) if other else None)
    if not better:
        return NO_REFERENCE
    if same_text(better) == same_text(answer):
        return EQUAL_ANSWERS
    facts = {"flow": run.facts.get("flow", ""), "better": "reference" if reference else "run"}
    if other:
        facts["against"] = other.name
    facts = {name: value for name, value in facts.items() if value}
    origin = Origin(SOURCE, run.name, str(line), LOST_LINE, facts)
    return Example(history_of_row(row), questions[-1], better, answer, "", origin)


def _differs_from_reference(line: int, answer: str, reference: str | None) -> str | None:
    if reference is None:
        return NO_REFERENCE
    return RIGHT if exact_match(answer, reference) else None


def _comparison(run: ScoredRun, other: ScoredRun, metric: str | None) -> LineTest:
    """Return the test that compares the scores of two runs."""
    from ..comparison import load_thresholds  # here, because it needs the extra `eval`

    name = _common_score(run, other, metric)
    direction = load_thresholds(run.thresholds).metric(name).higher_is_better
    if direction is None:
        raise OpsError(
            f"of the score {name!r}, neither direction is better", "Give another --metric."
        )
    sign = 1.0 if direction else -1.0

    def is_lost(line: int, answer: str, reference: str | None) -> str | None:
        scores = [_score(each, line, name) for each in (run, other)]
        if scores[0] is None or scores[1] is None:
            return NOT_SCORED
        return None if sign * scores[0] < sign * scores[1] else NOT_LOST

    return is_lost


def _common_score(run: ScoredRun, other: ScoredRun, metric: str | None) -> str:
    names = [name for name in _score_names(run) if name in _score_names(other)]
    if not names:
        fix = "Score both with `phi3 run --evaluate`."
        raise OpsError(f"{run.name} and {other.name} have no score in common", fix)
    if metric and metric not in names:
        raise OpsError(
            f"the runs have no score {metric!r} in common", f"They have: {', '.join(names)}."
        )
    return metric or (DEFAULT_METRIC if DEFAULT_METRIC in names else names[0])


def _score_names(run: ScoredRun) -> list[str]:
    rows = run.scored.rows.values()
    return list(
        dict.fromkeys(name for row in rows for name in row if _number(row[name]) is not None)
    )


def _score(run: ScoredRun, line: int, name: str) -> float | None:
    return _number(run.scored.rows.get(line, {}).get(name))


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and value == value else None  # type: ignore[arg-type]


def _answer(run: ScoredRun, line: int, row: Row) -> str:
    """Return the answer of a line; empty if the line failed."""
    outputs = run.asked.rows if run.asked else run.scored.rows
    answers = outputs.get(line, {})
    if ANSWER_COLUMN not in answers and not run.asked:
        answers = run.answers.get(line, {})
    answer = answers.get(ANSWER_COLUMN)
    return answer.strip() if isinstance(answer, str) else ""


def _reference(row: Row) -> str | None:
    texts = (row.get(name) for name in REFERENCE_COLUMNS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)
