"""Examples from the judgements of `phi3 review`: corrections and choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..review import EDIT as EDIT_JUDGEMENT
from ..review import FLAG as FLAG_JUDGEMENT
from ..review import RATING as RATING_JUDGEMENT
from ..review import Judgement
from .examples import (
    CHOICE,
    EDIT,
    EQUAL_ANSWERS,
    FLAG,
    NO_PREFERENCE,
    NO_QUESTION,
    RATING,
    UNCHANGED,
    Example,
    Origin,
    SourceExamples,
    correction,
    same_text,
)

SOURCE = "review"
_REASONS = {RATING_JUDGEMENT: RATING, FLAG_JUDGEMENT: FLAG}  # why a judgement gives no example


def examples_of_review(judgements: Sequence[Judgement], run: str) -> SourceExamples:
    """Return the examples of the judgements of a run.

    Args:
        judgements: the judgements that hold, as `read_judgements` returns them.
        run: name of the run.
    """
    unused: Counter[str] = Counter()
    examples: list[Example] = []
    for judgement in judgements:
        made, reason = _examples(judgement, run)
        examples += made
        if not made:
            unused[reason] += 1
    return SourceExamples(SOURCE, run, len(judgements), examples, unused)


def _examples(judgement: Judgement, run: str) -> tuple[list[Example], str]:
    """Return the examples of a judgement, and the reason if there are none."""
    question, time, history = judgement.question, judgement.time, judgement.history
    if judgement.kind in _REASONS:
        return [], _REASONS[judgement.kind]
    if not question:
        return [], NO_QUESTION
    if judgement.kind == EDIT_JUDGEMENT:
        origin = _origin(judgement, run, EDIT)
        edited = judgement.edited or ""
        return correction(history, question, judgement.answer, edited, time, origin), UNCHANGED
    chosen = judgement.chosen
    if chosen is None:
        return [], NO_PREFERENCE
    origin = _origin(judgement, run, CHOICE)
    pairs = [
        Example(history, question, chosen, rejected, time, origin)
        for rejected in judgement.rejected
        if same_text(rejected) != same_text(chosen)
    ]
    return pairs, EQUAL_ANSWERS


def _origin(judgement: Judgement, run: str, basis: str) -> Origin:
    facts = {"time": judgement.time, "line": str(judgement.line)}
    return Origin(SOURCE, run, judgement.id, basis, facts)
