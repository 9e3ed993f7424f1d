"""Examples from the feedback of users: corrections, thumbs up and choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

from ..feedback import Feedback
from .examples import (
    CHOICE,
    COMMENT,
    CONTRADICTORY_THUMBS,
    EDIT,
    EQUAL_ANSWERS,
    REPLACED,
    THUMB,
    THUMB_DOWN,
    UNCHANGED,
    Example,
    Origin,
    SourceExamples,
    Turns,
    correction,
    same_text,
    without_empty,
)

UP, DOWN = "thumbs_up", "thumbs_down"
SOURCE = "feedback"


def examples_of_feedback(records: Sequence[Feedback], name: str) -> SourceExamples:
    """Return the examples of pieces of feedback.

    A later thumb, choice or correction of the same person on the same turn replaces an earlier one.
    Thumbs up and down for the same answer to the same question contradict each other: none counts.

    Args:
        records: the feedback, in the order in which it was stored.
        name: file of the store.
    """
    unused: Counter[str] = Counter()
    examples: list[Example] = []
    thumbs = _latest((r for r in records if r.kind in (UP, DOWN)), _thumb_subject, unused)
    disputed = _disputed(thumbs)
    for record in thumbs:
        if _answer_key(record) in disputed:
            unused[CONTRADICTORY_THUMBS] += 1
        elif record.kind == DOWN:
            unused[THUMB_DOWN] += 1
        else:
            examples.append(_example(record, record.answer, None, THUMB, name))
    for record in _latest((r for r in records if r.kind == "edit"), _thumb_subject, unused):
        made = _corrections(record, name)
        unused[UNCHANGED] += not made
        examples += made
    for record in _latest((r for r in records if r.kind == "choice"), _question_of_person, unused):
        chosen, rejected = record.chosen or "", record.rejected or ""
        if same_text(chosen) == same_text(rejected):
            unused[EQUAL_ANSWERS] += 1
        else:
            examples.append(_example(record, chosen, rejected, CHOICE, name))
    unused[COMMENT] += sum(record.kind == "comment" for record in records)
    return SourceExamples(SOURCE, name, len(records), examples, +unused)


def _latest(
    records: Iterable[Feedback], subject: Callable[[Feedback], Hashable], unused: Counter[str]
) -> list[Feedback]:
    """Return the last record of each subject, and count the others as replaced."""
    latest: dict[Hashable, Feedback] = {}
    for record in records:
        unused[REPLACED] += latest.pop(subject(record), None) is not None
        latest[subject(record)] = record
    return list(latest.values())


def _turn_of_person(record: Feedback) -> Hashable:
    return record.who, record.conversation, record.turn


def _question_of_person(record: Feedback) -> Hashable:
    return _turn_of_person(record), same_text(record.question)


def _thumb_subject(record: Feedback) -> Hashable:
    return _question_of_person(record), same_text(record.answer)


def _answer_key(record: Feedback) -> Hashable:
    return _example(record, record.answer, None, THUMB, "").prompt, same_text(record.answer)


def _disputed(thumbs: Iterable[Feedback]) -> set[Hashable]:
    """Return the answers that have a thumb up and a thumb down."""
    kinds: dict[Hashable, set[str]] = {}
    for record in thumbs:
        kinds.setdefault(_answer_key(record), set()).add(record.kind)
    return {answer for answer, seen in kinds.items() if len(seen) > 1}


def _corrections(record: Feedback, name: str) -> list[Example]:
    return correction(
        _history(record),
        record.question,
        record.answer,
        record.edited or "",
        record.time,
        _origin(record, EDIT, name),
    )


def _example(record: Feedback, chosen: str, rejected: str | None, basis: str, name: str) -> Example:
    origin = _origin(record, basis, name)
    return Example(_history(record), record.question, chosen, rejected, record.time, origin)


def _history(record: Feedback) -> Turns:
    return tuple((message.role, message.content) for message in record.history)


def _origin(record: Feedback, basis: str, name: str) -> Origin:
    facts = {
        "time": record.time,
        "flow": record.flow,
        "flow_version": record.flow_version,
        "connection": record.connection,
        "model": record.model,
    }
    return Origin(SOURCE, name, record.id, basis, without_empty(facts))
