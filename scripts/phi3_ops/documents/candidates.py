"""The questions that a teacher wrote, with what the checks found out about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data import KnownTexts
from .passages import Passage
from .prompts import Draft
from .quotes import find_quote, is_long_enough

ANSWERED, REFUSAL = "answered", "refusal"  # kinds of rows
MIN_GROUNDEDNESS = 4.0  # of the rubric's 1 to 5: all claims but a minor one are supported

# Reasons for an exclusion.
EMPTY = "empty question or answer"
NO_QUOTE = "quote that is not in the passage"
SHORT_QUOTE = "quote of fewer than three words"
TEST_QUESTION = "question of the test data, or nearly one"
DUPLICATE = "question that another passage gave, or nearly one"
ANSWERED_ELSEWHERE = "unanswerable question that another passage answers"
NOT_GROUNDED = "answer that the passage does not support"
NOT_JUDGED = "verdict that cannot be read"


@dataclass(frozen=True)
class Candidate:
    """A question of a passage.

    Attributes:
        passage: the passage.
        draft: what the teacher wrote.
        span: begin and end of the quote in the passage's text; None for an unanswerable question.
    """

    passage: Passage
    draft: Draft
    span: tuple[int, int] | None = None

    @property
    def kind(self) -> str:
        """`ANSWERED` or `REFUSAL`."""
        return REFUSAL if self.draft.answer is None else ANSWERED

    @property
    def quote(self) -> str:
        """The quote as it is in the passage; empty for an unanswerable question."""
        return self.passage.text[slice(*self.span)] if self.span else ""

    def to_json(self, refusal: str, groundedness: float | None) -> dict[str, Any]:
        """Return the row.

        Args:
            refusal: the answer to unanswerable questions.
            groundedness: the judge's score; None for an unanswerable question.
        """
        passage = self.passage
        begin, end = self.span or (0, len(passage.text))
        origin: dict[str, Any] = {
            "source": "document",
            "file": passage.file,
            "page": passage.page,
            "headings": list(passage.headings),
            "start": passage.start + begin,
            "end": passage.start + end,
            "quote": self.quote,
            "groundedness": groundedness,
        }
        messages = [
            {"role": "user", "content": self.draft.question},
            {"role": "assistant", "content": self.draft.answer or refusal},
        ]
        return {"messages": messages, "kind": self.kind, "origin": origin}


@dataclass
class Checked:
    """Candidates that passed the checks so far, and those that did not.

    Attributes:
        passed: the candidates that passed.
        excluded: candidate and reason of the others.
    """

    passed: list[Candidate] = field(default_factory=list)
    excluded: list[tuple[Candidate, str]] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of excluded candidates, the most frequent first."""
        return dict(Counter(reason for _, reason in self.excluded).most_common())


def check_drafts(drafts: Mapping[Passage, Sequence[Draft]], test: KnownTexts) -> Checked:
    """Check the questions of all passages by rules, in the order of the passages.

    Args:
        drafts: the questions of each passage.
        test: the questions of the test data.
    """
    checked = Checked()
    known = KnownTexts()
    unanswerable = []
    for passage, questions in drafts.items():
        for draft in questions:
            candidate = Candidate(passage, draft, find_quote(draft.quote, passage.text))
            if candidate.kind == REFUSAL:
                unanswerable.append(Candidate(passage, draft))
            elif reason := _problem(candidate, test) or _duplicate(candidate, known):
                checked.excluded.append((candidate, reason))
            else:
                known.add(draft.question)
                checked.passed.append(candidate)
    refusals = KnownTexts()
    for candidate in unanswerable:
        question = candidate.draft.question
        reason = "" if question.strip() else EMPTY
        reason = reason or (TEST_QUESTION if test.find(question) else "")
        reason = reason or (ANSWERED_ELSEWHERE if known.find(question) else "")
        if reason := reason or _duplicate(candidate, refusals):
            checked.excluded.append((candidate, reason))
        else:
            refusals.add(question)
            checked.passed.append(candidate)
    return checked


def _problem(candidate: Candidate, test: KnownTexts) -> str:
    """Return the reason for which an answered question cannot be used; empty if there is none."""
    draft = candidate.draft
    if not draft.question or not draft.answer:
        return EMPTY
    if candidate.span is None:
        return NO_QUOTE
    if not is_long_enough(draft.quote, candidate.passage.text):
        return SHORT_QUOTE
    return TEST_QUESTION if test.find(draft.question) else ""


def _duplicate(candidate: Candidate, known: KnownTexts) -> str:
    return DUPLICATE if known.find(candidate.draft.question) else ""
