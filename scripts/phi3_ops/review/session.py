"""A review: which line comes when, what the reviewer sees of it, and what the reviewer said.

The page gets no names of runs before the end. The answers of a line have an order of their own, and the
page names them by their position.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OpsError
from ..terminal import is_blank
from .records import (
    CHOICE,
    EDIT,
    FLAG,
    RATING,
    JudgedAnswer,
    Judgement,
    Subject,
    current_time,
    is_rating,
    new_id,
)
from .store import append_judgement, read_file, review_file
from .subjects import ReviewedData, ReviewedRun, blind_name

MAX_TEXT = 100_000  # characters of a corrected answer
TIE = "tie"
_FIELDS = ("kind", "answer", "value")  # of a judgement that the page sends


class RefusedJudgementError(ValueError):
    """A judgement that the page sent is not valid; the text says which field and why."""


@dataclass(frozen=True)
class ReviewSettings:
    """How a review is done.

    Attributes:
        rubric: name of the rubric by which answers are rated and compared.
        lines: number of lines to review, a random sample; None for all lines.
        seed: seed of the order of the lines and of the answers.
    """

    rubric: str
    lines: int | None = None
    seed: int = 1


class ReviewSession:
    """The state of a review. Its methods can be called from several threads.

    Args:
        runs: the runs.
        data: the lines of their data.
        settings: how the review is done.

    Raises:
        OpsError: the file of the judgements of a run is damaged or of a newer version.
    """

    def __init__(
        self, runs: Sequence[ReviewedRun], data: ReviewedData, settings: ReviewSettings
    ) -> None:
        self.runs, self.data, self.settings = runs, data, settings
        self._lock = threading.Lock()
        self._files = {run.location.name: review_file(run.location) for run in runs}
        self._judgements: dict[Subject, Judgement] = {}
        for judgement in load_judgements(runs):
            self._judgements[judgement.subject] = judgement
        self.lines = self._sample()
        self.has_ended = False

    @property
    def judgements(self) -> list[Judgement]:
        """The judgements that hold."""
        with self._lock:
            return [each for each in self._judgements.values() if each.is_current]

    def overview(self) -> dict[str, Any]:
        """Return what the page needs at its start: the numbers of lines and runs, and where to go on."""
        judged = [self.is_judged(line) for line in self.lines]
        first = judged.index(False) if False in judged else 0
        return {
            "lines": len(self.lines),
            "runs": len(self.runs),
            "judged": sum(judged),
            "position": first,
            "ended": self.has_ended,
        }

    def line(self, position: int, *, with_scores: bool = False) -> dict[str, Any]:
        """Return what the page shows of a line.

        Args:
            position: position of the line in the review, from 0.
            with_scores: whether scores are shown although the line is not judged.

        Raises:
            RefusedJudgementError: the position does not exist.
        """
        line = self._line_at(position)
        runs = self._blinded(line)
        judged = self.is_judged(line)
        choice = self._latest(CHOICE, line, runs) if len(runs) > 1 else None
        preferred = choice.preferred if choice and choice.is_current else None
        return {
            "position": position,
            "number": line,
            "question": self.data.displayed_question(line),
            "history": "\n\n".join(f"{role}: {text}" for role, text in self.data.history(line))
            or None,
            "reference": self.data.reference(line),
            "context": self.data.context(line),
            "answers": [self._answer(run, line, with_scores=judged or with_scores) for run in runs],
            "choice": None
            if not (choice and choice.is_current)
            else TIE
            if preferred is None
            else [run.location.name for run in runs].index(preferred),
            "judged": judged,
        }

    def judge(self, position: int, content: Mapping[str, Any]) -> None:
        """Store a judgement that the page sent.

        Args:
            position: position of the line in the review, from 0.
            content: `kind`, `answer` (position of the answer on the page, from 0; not for a choice), and
                `value`: the rating, the corrected answer, whether the answer is flagged, or for a choice
                the position of the better answer or `TIE`. A value of None withdraws the judgement.

        Raises:
            RefusedJudgementError: a field is not valid, or the review has ended.
            OpsError: the judgement cannot be stored.
        """
        line = self._line_at(position)
        judgement = self._judgement(line, content)
        with self._lock:
            if self.has_ended:
                raise RefusedJudgementError(
                    "the review has ended, and the names are known; start `phi3 review` again"
                )
            for name in judgement.runs:
                append_judgement(self._files[name], judgement)
            self._judgements[judgement.subject] = judgement

    def end(self) -> None:
        """End the review: from now on, the page may show names, and no judgement is accepted."""
        with self._lock:
            self.has_ended = True

    def is_judged(self, line: int) -> bool:
        """Return whether every answer of a line is rated, or the better one is chosen.

        A line without any answer is judged: there is nothing to judge.
        """
        runs = self._answered(line)
        if not runs:
            return True
        if len(runs) > 1 and self._has(CHOICE, line, runs):
            return True
        return all(self._has(RATING, line, [run]) for run in runs)

    # -- internals ---------------------------------------------------------------------------------

    def _sample(self) -> list[int]:
        """Return the reviewed lines in random order, so that every beginning is a random sample."""
        lines = list(range(len(self.data.rows)))
        random.Random(self.settings.seed).shuffle(lines)
        return lines[: self.settings.lines]

    def _line_at(self, position: int) -> int:
        if type(position) is not int or not 0 <= position < len(self.lines):
            raise RefusedJudgementError(
                f"position is {position!r}; there are {len(self.lines)} lines"
            )
        return self.lines[position]

    def _blinded(self, line: int) -> list[ReviewedRun]:
        """Return the runs in the order of their answers on the page, which differs from line to line."""

        def rank(run: ReviewedRun) -> bytes:
            text = f"{self.settings.seed}\n{line}\n{run.location.name}"
            return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

        return sorted(self.runs, key=rank)

    def _answered(self, line: int) -> list[ReviewedRun]:
        return [run for run in self.runs if line in run.answers]

    def _answer(self, run: ReviewedRun, line: int, *, with_scores: bool) -> dict[str, Any]:
        rating = self._latest(RATING, line, [run])
        edit = self._latest(EDIT, line, [run])
        flag = self._latest(FLAG, line, [run])
        reasons = {
            blind_name(judge.description, rubric): lines[line]
            for judge in run.judges
            for rubric, lines in judge.reasons.items()
            if line in lines
        }
        return {
            "text": run.answers.get(line),
            "rating": rating.rating if rating else None,
            "edited": edit.edited if edit else None,
            "flagged": bool(flag and flag.flagged),
            "scores": dict(run.scores.get(line, {})) if with_scores else None,
            "reasons": reasons if with_scores else None,
        }

    def _latest(self, kind: str, line: int, runs: Sequence[ReviewedRun]) -> Judgement | None:
        return self._judgements.get(self._subject(kind, line, runs))

    def _has(self, kind: str, line: int, runs: Sequence[ReviewedRun]) -> bool:
        judgement = self._latest(kind, line, runs)
        return judgement is not None and judgement.is_current

    def _subject(self, kind: str, line: int, runs: Sequence[ReviewedRun]) -> Subject:
        rubric = self.settings.rubric if kind in (RATING, CHOICE) else None
        return kind, line, rubric, tuple(sorted(run.location.name for run in runs))

    def _judgement(self, line: int, content: Mapping[str, Any]) -> Judgement:
        if unknown := sorted(set(content) - set(_FIELDS)):
            raise RefusedJudgementError(
                f"{unknown[0][:40]!a} is not a field; the fields are {', '.join(_FIELDS)}"
            )
        if "value" not in content:
            raise RefusedJudgementError("value is missing; null withdraws the judgement")
        kind = content.get("kind")
        if kind not in (RATING, CHOICE, EDIT, FLAG):
            raise RefusedJudgementError(f"kind is {kind!r}")
        runs = self._answered(line)
        if kind == CHOICE and len(runs) < 2:
            raise RefusedJudgementError("a choice needs two answers")
        judged_runs = runs if kind == CHOICE else [self._run_at(line, content.get("answer"))]
        answers = tuple(JudgedAnswer(run.location.name, run.answers[line]) for run in judged_runs)
        value = content.get("value")
        if kind == CHOICE:
            fields = self._choice_fields(line, value)
        else:
            fields = _fields(kind, value, answers[0].text)
        return Judgement(
            id=new_id(),
            time=current_time(),
            kind=kind,
            line=line,
            question=self.data.question(line),
            reference=self.data.reference(line),
            history=self.data.history(line),
            answers=answers,
            rubric=self.settings.rubric if kind in (RATING, CHOICE) else None,
            **fields,
        )

    def _run_at(self, line: int, position: Any) -> ReviewedRun:
        runs = self._blinded(line)
        if type(position) is not int or not 0 <= position < len(runs):
            raise RefusedJudgementError(f"answer is {position!r}; there are {len(runs)} answers")
        if line not in runs[position].answers:
            raise RefusedJudgementError("this answer failed, so it cannot be judged")
        return runs[position]

    def _choice_fields(self, line: int, value: Any) -> dict[str, Any]:
        if value is None:
            return {"withdrawn": True}
        if value == TIE:
            return {"preferred": None}
        return {"preferred": self._run_at(line, value).location.name}


def _fields(kind: str, value: Any, answer: str) -> dict[str, Any]:
    """Return the fields of a rating, an edit or a flag.

    Raises:
        RefusedJudgementError: the value is not valid.
    """
    if kind == FLAG:
        if not isinstance(value, bool):
            raise RefusedJudgementError(f"value is {value!r}; a flag is true or false")
        return {"flagged": value}
    if kind == RATING:
        if value is not None and not is_rating(value):
            raise RefusedJudgementError(
                f"value is {value!r}; a rating is a whole number from 1 to 5"
            )
        return {"rating": value}
    if value is None or value == answer:
        return {"edited": None}
    if not isinstance(value, str) or not value.strip():
        raise RefusedJudgementError("value is not a text; it is the corrected answer")
    if len(value) > MAX_TEXT:
        raise RefusedJudgementError(f"value has more than {MAX_TEXT:,} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RefusedJudgementError("value contains half of a surrogate pair")
    if is_blank(value):
        raise RefusedJudgementError("value has no visible character")
    return {"edited": value}


def load_judgements(runs: Sequence[ReviewedRun]) -> list[Judgement]:
    """Return the judgements that hold, of all rubrics, about the present answers of some runs.

    Raises:
        OpsError: the file of the judgements of a run is damaged or of a newer version.
    """
    latest: dict[Subject, Judgement] = {}
    for run in runs:
        of_file = {each.subject: each for each in read_file(review_file(run.location))}
        for subject, judgement in of_file.items():
            # A choice is in the files of all its runs, or after an error only in some of them.
            if subject not in latest or judgement.time >= latest[subject].time:
                latest[subject] = judgement
    answers = {run.location.name: run.answers for run in runs}
    return [
        judgement
        for judgement in latest.values()
        if judgement.is_current
        and all(
            answers.get(answer.run, {}).get(judgement.line) == answer.text
            for answer in judgement.answers
        )
    ]


def choose_rubric(data: ReviewedData, judgements: Sequence[Judgement], name: str | None) -> str:
    """Return the name of the rubric of a review.

    Args:
        data: the lines of the data.
        judgements: the judgements that were made before.
        name: the name that the user gave. By default, it is the rubric of the latest judgement; without
            one, `correctness` if the data has references, else `relevance`.

    Raises:
        OpsError: the data has no lines.
    """
    if not data.rows:
        raise OpsError("the data file has no lines", "There is nothing to review.")
    latest = max(
        (each for each in judgements if each.rubric), key=lambda each: each.time, default=None
    )
    if name or latest:
        return name or str(latest and latest.rubric)
    has_references = any(data.reference(line) for line in range(len(data.rows)))
    return "correctness" if has_references else "relevance"
