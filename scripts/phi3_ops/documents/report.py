"""The report of rows from documents: counts, samples with their sources, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .candidates import REFUSAL, Candidate
from .results import DocumentData

TEMPLATES = Path(__file__).parent / "templates"
MAX_SAMPLES = 200  # questions of each table


@dataclass(frozen=True)
class Sample:
    """A question as the report shows it.

    Attributes:
        question, answer: what the teacher wrote; the answer is empty if the question is unanswerable.
        location: file, page and headings of the passage.
        before, quote, after: the passage, divided at the quote; without a quote, all is in `before`.
        score: groundedness; empty without a verdict.
        reason: reason for the exclusion; empty for a row.
        teacher_quote: the quote of the teacher, if the passage does not contain it.
    """

    question: str
    answer: str
    location: str
    before: str
    quote: str
    after: str
    score: str
    reason: str = ""
    teacher_quote: str = ""


def render_document_report(data: DocumentData) -> str:
    """Return the report as HTML."""
    from ..comparison import render_page  # here, because it needs the extra `eval`

    rows = data.checked.passed
    excluded = data.checked.excluded
    return render_page(
        "documents.html",
        folder=TEMPLATES,
        css=(TEMPLATES / "documents.css").read_text(encoding="utf-8"),
        counts=data.to_json(),
        rows=[_sample(candidate, data) for candidate in _spread(rows)],
        row_count=len(rows),
        excluded=[_sample(candidate, data, reason) for candidate, reason in excluded[:MAX_SAMPLES]],
        excluded_count=len(excluded),
        failed=[(p.location, error) for p, error in data.asked.failed.items()][:MAX_SAMPLES],
        refusal=REFUSAL,
    )


def _spread(candidates: list[Candidate]) -> list[Candidate]:
    """Return at most `MAX_SAMPLES` candidates, evenly spread over all documents."""
    if len(candidates) <= MAX_SAMPLES:
        return candidates
    step = len(candidates) / MAX_SAMPLES
    return [candidates[int(number * step)] for number in range(MAX_SAMPLES)]


def _sample(candidate: Candidate, data: DocumentData, reason: str = "") -> Sample:
    text, score = candidate.passage.text, data.scores.get(candidate)
    begin, end = candidate.span or (len(text), len(text))
    return Sample(
        question=candidate.draft.question,
        answer=candidate.draft.answer or "",
        location=candidate.passage.location,
        before=text[:begin],
        quote=text[begin:end],
        after=text[end:],
        score="" if score is None else f"{score:g}",
        reason=reason,
        teacher_quote="" if candidate.span else candidate.draft.quote,
    )
