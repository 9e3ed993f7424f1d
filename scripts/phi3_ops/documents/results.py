"""What became of documents, passages and questions, with counts that add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .candidates import ANSWERED, REFUSAL, Candidate, Checked
from .finding import SkippedFile
from .jobs import JobResults
from .passages import Passage, SplitDocuments
from .prompts import Draft


@dataclass(frozen=True)
class CallCounts:
    """Calls and tokens of a run of the command, and of all runs together.

    Attributes:
        calls: calls of this run.
        all_calls: calls of all runs, which the journal has.
        prompt_tokens, completion_tokens: tokens of all runs.
    """

    calls: int
    all_calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass
class DocumentData:
    """What became of all documents, passages and questions.

    Attributes:
        documents: number of documents that were read.
        skipped: the files that were not read, with the reason.
        split: the passages.
        asked: the questions of each passage.
        judged: the candidates that were to be judged, with their scores; None if it cannot be read.
        checked: the questions after all checks; those that were not judged yet are in neither list.
        counts: calls and tokens.
        scores: the scores of the judged candidates.
        cleaned: document -> number of control characters that became spaces.
    """

    documents: int
    skipped: list[SkippedFile]
    split: SplitDocuments
    asked: JobResults[Passage, list[Draft]]
    judged: JobResults[Candidate, float | None]
    checked: Checked
    counts: CallCounts
    scores: dict[Candidate, float] = field(default_factory=dict)
    cleaned: dict[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every passage was asked about, and every answer judged."""
        parts = (self.asked, self.judged)
        return not any(part.failed or part.not_asked for part in parts)

    @property
    def errors(self) -> list[str]:
        """The different errors of the teacher and the judge."""
        return list(dict.fromkeys([*self.asked.failed.values(), *self.judged.failed.values()]))

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON, which add up; docs/data-from-documents.md describes them."""
        kinds = [candidate.kind for candidate in self.checked.passed]
        judged, asked = self.judged, self.asked
        return {
            "complete": self.is_complete,
            "files": {
                "found": self.documents + len(self.skipped),
                "read": self.documents,
                "not_read": [{"file": f.name, "reason": f.reason} for f in self.skipped],
                "control_characters": self.cleaned,
            },
            "passages": {
                "found": len(self.split.passages) + self.split.short + self.split.repeated,
                "short": self.split.short,
                "repeated": self.split.repeated,
                "asked": len(asked.done),
                "failed": len(asked.failed),
                "not_asked": len(asked.not_asked),
            },
            "questions": {
                "written": sum(map(len, asked.done.values())),
                "taken": {kind: kinds.count(kind) for kind in (ANSWERED, REFUSAL)},
                "excluded": self.checked.reasons,
                "not_judged": len(judged.failed) + len(judged.not_asked),
            },
            "calls": {
                "now": self.counts.calls,
                "all": self.counts.all_calls,
                "prompt_tokens": self.counts.prompt_tokens,
                "completion_tokens": self.counts.completion_tokens,
            },
            "errors": self.errors,
        }
