"""Judgements of reviewers: one dataclass, and its JSON.

docs/review.md describes the file. A judgement contains the texts that it is about, so that it stays
readable when the run or its data file changes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

RATING, CHOICE, EDIT, FLAG = "rating", "choice", "edit", "flag"
KINDS = (RATING, CHOICE, EDIT, FLAG)
LOWEST, HIGHEST = 1, 5  # of a rating

# What a judgement is about: kind, line, rubric, and the names of the runs.
Subject = tuple[str, int, str | None, tuple[str, ...]]


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer that a judgement is about.

    Attributes:
        run: name of the run that gave it; for a run in a file or a folder, the absolute path.
        text: the answer.
    """

    run: str
    text: str


@dataclass(frozen=True)
class Judgement:
    """What a reviewer said about a line.

    Attributes:
        id: random id of the judgement. The judgement of a choice is stored beside each compared run.
        time: time at which it was made: ISO 8601, UTC.
        kind: `RATING`, `CHOICE`, `EDIT` or `FLAG`.
        line: number of the line in the data file, from 0.
        question: the question; empty if the line has no column with a question.
        reference: the reference answer; None if the data has none.
        answers: the judged answer; for a choice, the two or more answers that were compared.
        rubric: of a rating or a choice: the name of the rubric by which the answer was judged.
        rating: of a rating: `LOWEST` to `HIGHEST`, or None if the rating was withdrawn.
        edited: of an edit: the corrected answer, or None if the edit was withdrawn.
        preferred: of a choice: the name of the better run, or None if all are equally good.
        flagged: of a flag: whether the answer is flagged; False if the flag was withdrawn.
        withdrawn: of a choice: whether it was withdrawn.
        history: role and content of the earlier messages of the conversation.
    """

    id: str
    time: str
    kind: str
    line: int
    question: str
    reference: str | None
    answers: tuple[JudgedAnswer, ...]
    rubric: str | None = None
    rating: int | None = None
    edited: str | None = None
    preferred: str | None = None
    flagged: bool = False
    withdrawn: bool = False
    history: tuple[tuple[str, str], ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs whose answers are judged."""
        return tuple(answer.run for answer in self.answers)

    @property
    def answer(self) -> str:
        """The judged answer of a rating, an edit or a flag."""
        return self.answers[0].text

    @property
    def chosen(self) -> str | None:
        """The text of the preferred answer of a choice; None if all are equally good."""
        texts = (answer.text for answer in self.answers if answer.run == self.preferred)
        return next(texts, None)

    @property
    def rejected(self) -> tuple[str, ...]:
        """The texts of the other answers of a choice; empty if all are equally good."""
        if self.preferred is None:
            return ()
        return tuple(answer.text for answer in self.answers if answer.run != self.preferred)

    @property
    def is_current(self) -> bool:
        """Whether the judgement says something: it does not withdraw an earlier one."""
        if self.kind == RATING:
            return self.rating is not None
        if self.kind == EDIT:
            return self.edited is not None
        return self.flagged if self.kind == FLAG else not self.withdrawn

    @property
    def subject(self) -> Subject:
        """What the judgement is about. A later judgement of the same subject replaces it."""
        return self.kind, self.line, self.rubric, tuple(sorted(self.runs))

    def to_json(self) -> dict[str, Any]:
        """Return the judgement as one object of the file."""
        history = [{"role": role, "content": content} for role, content in self.history]
        return {**asdict(self), "history": history}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Judgement:
        """Return the judgement of an object of the file; unknown fields are ignored.

        Raises:
            ValueError: a field is missing or has a wrong value.
        """
        try:
            answers = tuple(
                JudgedAnswer(_text(each["run"]), _text(each["text"])) for each in content["answers"]
            )
            judgement = cls(
                id=_text(content["id"]),
                time=_text(content["time"]),
                kind=content["kind"],
                line=content["line"],
                question=_text(content["question"]),
                reference=_optional_text(content.get("reference")),
                answers=answers,
                rubric=_optional_text(content.get("rubric")),
                rating=content.get("rating"),
                edited=_optional_text(content.get("edited")),
                preferred=_optional_text(content.get("preferred")),
                flagged=content.get("flagged") is True,
                withdrawn=content.get("withdrawn") is True,
                history=tuple(
                    (_text(each["role"]), _text(each["content"]))
                    for each in content.get("history") or ()
                ),
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or has a wrong type: {error}") from error
        judgement._check()
        return judgement

    def _check(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}")
        if type(self.line) is not int or self.line < 0:
            raise ValueError(f"line is {self.line!r}")
        if self.rating is not None and not is_rating(self.rating):
            raise ValueError(f"rating is {self.rating!r}")
        if len(self.answers) < (2 if self.kind == CHOICE else 1):
            raise ValueError("answers are missing")
        if self.preferred is not None and self.preferred not in self.runs:
            raise ValueError(f"preferred is {self.preferred!r}, which is not a run of `answers`")


def is_rating(value: object) -> bool:
    """Return whether a value is a whole number from `LOWEST` to `HIGHEST`."""
    return type(value) is int and LOWEST <= value <= HIGHEST


def new_id() -> str:
    """Return a random id for a judgement."""
    return secrets.token_hex(8)


def current_time() -> str:
    """Return the time in the form of `Judgement.time`."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def latest_judgements(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements that hold: the latest of each subject, unless it withdraws the others.

    Args:
        judgements: judgements in the order in which they were made.
    """
    latest: dict[Subject, Judgement] = {}
    for judgement in judgements:
        latest.pop(judgement.subject, None)
        latest[judgement.subject] = judgement
    return [judgement for judgement in latest.values() if judgement.is_current]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)
