"""What is reviewed: the runs, the lines of their data, and the scores that judges gave."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phi3_tools.evaluation import RUBRICS

from ..data import history_of_row, questions_of_row
from ..errors import OpsError
from ..files import read_jsonl
from ..hashing import file_sha256
from ..runs import (
    RunLocation,
    ScoredRun,
    answers_location,
    list_evaluations,
    load_scored_run,
    run_name,
)
from .records import HIGHEST, LOWEST

MAX_RUNS = 4  # that fit side by side on the page
REFERENCE_COLUMNS = ("ground_truth", "reference", "expected")
WINNERS = ("answer", "answer_b", "tie")  # values of the output `winner` of flows/judge_pairwise
_NOT_OF_THE_JUDGE = ("tokens",)  # facts that differ between two runs of one judge


@dataclass(frozen=True)
class Verdict:
    """What a judge decided about two answers of a line."""

    answer: str
    answer_b: str
    winner: str


@dataclass(frozen=True)
class JudgeRun:
    """A run of a judge over the answers of a run.

    Attributes:
        name: name of the judge's run.
        label: name of the judge for people: its connection, its flow and the flow's version.
        facts: how the judge's run was made; two runs with the same facts are of the same judge.
        scores: rubric -> line -> score.
        reasons: rubric -> line -> the judge's reason.
        verdicts: line -> the decision of a pairwise judge.
        description: the label; empty if it would say which run was judged.
    """

    name: str
    label: str
    facts: Mapping[str, str]
    scores: Mapping[str, Mapping[int, float]]
    reasons: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True)
class ReviewedRun:
    """A run whose answers are reviewed.

    Attributes:
        title: the name that the user gave.
        location: name and folder of the run of the answers.
        data: the data file.
        answers: line -> answer; failed lines are missing.
        errors: line -> the reason for which the line failed.
        scores: line -> names and values of the scores that evaluations gave.
        judges: the runs of judges over these answers.
    """

    title: str
    location: RunLocation
    data: Path
    answers: Mapping[int, str]
    errors: Mapping[int, str]
    scores: Mapping[int, Mapping[str, float]]
    judges: Sequence[JudgeRun]


@dataclass(frozen=True)
class ReviewedData:
    """The lines that are reviewed: question, conversation, reference and context."""

    rows: Sequence[Mapping[str, Any]]

    def question(self, line: int) -> str:
        """Return the question of a line; empty without a column of a known name."""
        return (questions_of_row(self.rows[line]) or [""])[-1]

    def displayed_question(self, line: int) -> str:
        """Return what the page shows as the question of a line; without one, the complete row."""
        return self.question(line) or json.dumps(self.rows[line], ensure_ascii=False)

    def history(self, line: int) -> tuple[tuple[str, str], ...]:
        """Return role and content of the earlier messages of a line's conversation."""
        return history_of_row(self.rows[line])

    def reference(self, line: int) -> str | None:
        """Return the reference answer of a line, or None."""
        return _column(self.rows[line], REFERENCE_COLUMNS)

    def context(self, line: int) -> str | None:
        """Return the context of a line, or None."""
        return _column(self.rows[line], ("context",))


def load_runs(
    references: Sequence[str], data: Path | None = None, judges: Sequence[str] = ()
) -> tuple[list[ReviewedRun], ReviewedData]:
    """Load the runs to review, and their data.

    Args:
        references: the runs, as in `load_scored_run`.
        data: the data file, which replaces the recorded one.
        judges: the runs of judges that are used; by default, every evaluation of the runs.

    Raises:
        OpsError: a run does not exist, two references are of one run, or the runs used different data.
    """
    if len(references) > MAX_RUNS:
        raise OpsError(f"{len(references)} runs given", f"Give at most {MAX_RUNS}.")
    locations = [answers_location(reference) for reference in references]
    for position, location in enumerate(locations):
        if location in locations[:position]:
            raise OpsError(f"{references[position]} is given twice", "Give each run once.")
    scored_runs = [load_scored_run(reference, data) for reference in references]
    file = scored_runs[0].data
    for run in scored_runs[1:]:
        if file_sha256(run.data) != file_sha256(file):
            raise OpsError(
                f"{references[0]} ran over {file}, and {run.name} over {run.data}",
                "Only runs over the same data can be reviewed together.",
            )
    evaluations = [_evaluations(pair, data) for pair in zip(locations, scored_runs)]
    judge_names = _judge_names(judges, evaluations)
    runs = [
        _reviewed_run(
            location,
            run,
            [each for each in found if not judge_names or each.name in judge_names],
        )
        for location, run, found in zip(locations, scored_runs, evaluations)
    ]
    return runs, ReviewedData(read_jsonl(file))


def _evaluations(pair: tuple[RunLocation, ScoredRun], data: Path | None) -> list[ScoredRun]:
    """Return the evaluations of a run, and the run itself, if it may contain scores."""
    location, run = pair
    names = list_evaluations(location.name)
    return [*([] if run.asked else [run]), *(load_scored_run(name, data) for name in names)]


def _judge_names(judges: Sequence[str], evaluations: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """Return the names of the evaluations that the user named, by their names or display names."""
    available = [run.name for runs in evaluations for run in runs]
    names = []
    for judge in judges:
        name = judge
        if judge not in available:
            with suppress(OpsError):
                name = run_name(judge)
        if name not in available:
            raise OpsError(
                f"{judge} is not a completed evaluation of these runs",
                f"Their evaluations are: {', '.join(available) or 'none'}.",
            )
        names.append(name)
    return names


def _reviewed_run(
    location: RunLocation, run: ScoredRun, evaluations: Sequence[ScoredRun]
) -> ReviewedRun:
    scores: dict[int, dict[str, float]] = {}
    for evaluation in evaluations:
        # The connection and the flow of the run itself would say whose answer it is.
        description = "" if evaluation is run else _description(evaluation)
        for line, row in evaluation.scored.rows.items():
            numbers = {name: value for name, value in row.items() if is_number(value)}
            for name, value in numbers.items():
                scores.setdefault(line, {})[blind_name(description, name)] = float(value)
    judges = [
        replace(judge, description="") if evaluation is run else judge
        for evaluation in evaluations
        if (judge := _judge_run(evaluation))
    ]
    answers = {line: answer_text(row) for line, row in run.answers.items()}
    return ReviewedRun(run.name, location, run.data, answers, run.errors, scores, judges)


def answer_text(row: Mapping[str, Any]) -> str:
    """Return the output `answer` of a line; without one, the first text; else the complete outputs."""
    value = row.get("answer")
    if value is None:
        texts = [each for each in row.values() if isinstance(each, str)]
        value = texts[-1] if texts else dict(row)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _judge_run(run: ScoredRun) -> JudgeRun | None:
    """Return an evaluation as the run of a judge; None if it has no scores by a rubric and no winners."""
    scores: dict[str, dict[int, float]] = {}
    reasons: dict[str, dict[int, str]] = {}
    verdicts = {}
    for line, row in run.scored.rows.items():
        for name in RUBRICS:
            if is_number(row.get(name)) and LOWEST <= row[name] <= HIGHEST:
                scores.setdefault(name, {})[line] = float(row[name])
                if reason := _reason(row, name):
                    reasons.setdefault(name, {})[line] = reason
        inputs = run.scored.inputs.get(line, {})
        if row.get("winner") in WINNERS and {"answer", "answer_b"} <= set(inputs):
            verdicts[line] = Verdict(
                str(inputs["answer"]), str(inputs["answer_b"]), str(row["winner"])
            )
    if not scores and not verdicts:
        return None
    description = _description(run)
    label = description or run.name
    return JudgeRun(run.name, label, judge_facts(run), scores, reasons, verdicts, description)


def _reason(row: Mapping[str, Any], rubric: str) -> str | None:
    try:
        reason = row["verdicts"][rubric]["reason"]
    except (LookupError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def judge_facts(run: ScoredRun) -> dict[str, str]:
    """Return how a judge's run was made, without what differs between two runs of one judge."""
    facts = {name: fact for name, fact in run.scored.facts.items() if name not in _NOT_OF_THE_JUDGE}
    return facts or {"run": run.name}


def blind_name(description: str, score: str) -> str:
    """Return the name of a score on the page. It does not contain the name of a run."""
    return f"{description}: {score}" if description else score


def _description(run: ScoredRun) -> str:
    """Return the connections and the flow of an evaluation; empty if they are not recorded."""
    facts = run.scored.facts
    connections = [fact for name, fact in facts.items() if name.endswith(".connection")]
    flow = " ".join(facts[name] for name in ("flow", "flow version") if name in facts)
    return ", ".join([*dict.fromkeys(connections), *([flow] if flow else [])])


def is_number(value: object) -> bool:
    """Return whether a value is a finite number and not a truth value."""
    is_numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_numeric and math.isfinite(value)  # type: ignore[arg-type]


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of some columns that has a value, as text."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
