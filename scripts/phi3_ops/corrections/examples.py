"""Examples for training: an answer to learn, or a better and a worse answer to the same question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data import comparable_text

# Why an example teaches something. A correction was written by a person who saw the answer.
EDIT, THUMB, CHOICE, LOST_LINE = "edit", "thumb up", "choice", "lost line"

# Reasons for which a record of a source gives no example.
THUMB_DOWN = "thumb down"
COMMENT = "comment"
RATING = "rating"
FLAG = "flag"
REPLACED = "replaced by the same person"
CONTRADICTORY_THUMBS = "contradictory thumbs"
UNCHANGED = "correction without a change"
EQUAL_ANSWERS = "equal answers"
NO_PREFERENCE = "no answer is better"
NO_QUESTION = "no question"

Turns = tuple[tuple[str, str], ...]  # role and content of the earlier messages


@dataclass(frozen=True)
class Origin:
    """Where an example comes from.

    Attributes:
        source: `feedback`, `review` or `run`.
        name: file of the store, or name of the run.
        record: id of the feedback or the judgement, or number of the line, from 0.
        basis: `EDIT`, `THUMB`, `CHOICE` or `LOST_LINE`.
        facts: further facts, such as the flow, its version and the model; without empty ones.
    """

    source: str
    name: str
    record: str
    basis: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, str]:
        """Return the column `origin` of a row."""
        fixed = {"source": self.source, "name": self.name, "record": self.record}
        return {**fixed, "basis": self.basis, **self.facts}


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        history: the earlier messages of the conversation.
        question: the question.
        chosen: the answer to learn.
        rejected: the worse answer of a pair; None for an example that becomes a row.
        time: when it was made, in ISO 8601 in UTC; empty for the lines of runs.
        origin: where it comes from.
    """

    history: Turns
    question: str
    chosen: str
    rejected: str | None
    time: str
    origin: Origin

    @property
    def prompt(self) -> tuple[str, ...]:
        """A value that is equal for examples with the same history and question."""
        return tuple(comparable_text(text) for text in self.texts_of_history) + (
            comparable_text(self.question),
        )

    @property
    def texts_of_history(self) -> list[str]:
        """The contents of the earlier messages."""
        return [content for _, content in self.history]

    @property
    def questions(self) -> list[str]:
        """The questions of all turns: the answers to all of them are trained."""
        return [*(content for role, content in self.history if role == "user"), self.question]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages up to the question."""
        earlier = [{"role": role, "content": content} for role, content in self.history]
        return [*earlier, {"role": "user", "content": self.question}]

    def to_json(self) -> dict[str, Any]:
        """Return the row: `messages`, or `prompt`, `chosen` and `rejected`; and its `origin`."""
        origin = self.origin.to_json()
        if self.rejected is None:
            answer = {"role": "assistant", "content": self.chosen}
            return {"messages": [*self.messages, answer], "origin": origin}
        prompt = self.messages if self.history else self.question
        pair = {"prompt": prompt, "chosen": self.chosen, "rejected": self.rejected}
        return {**pair, "origin": origin}


@dataclass(frozen=True)
class SourceExamples:
    """What a source gives.

    Attributes:
        source, name: as in `Origin`.
        records: number of the records (pieces of feedback, judgements or lines) of the source.
        examples: the examples. A correction gives a row and a pair.
        unused: reason -> number of the records that give no example.
    """

    source: str
    name: str
    records: int
    examples: list[Example]
    unused: Counter[str]

    @property
    def used(self) -> int:
        """Number of the records that give an example."""
        return len({example.origin.record for example in self.examples})


def same_text(text: str) -> str:
    """Return a text in the form in which answers are compared: white space makes no difference."""
    return " ".join(text.split())


def correction(
    history: Turns, question: str, answer: str, edited: str, time: str, origin: Origin
) -> list[Example]:
    """Return the examples of a correction: a row, and a pair unless the answer was empty.

    The list is empty if the correction changes nothing.
    """
    if same_text(answer) == same_text(edited):
        return []
    row = Example(history, question, edited, None, time, origin)
    pair = Example(history, question, edited, answer, time, origin)
    return [row, pair] if answer.strip() else [row]


def without_empty(facts: Mapping[str, str | None]) -> dict[str, str]:
    """Return the facts that are known."""
    return {name: value for name, value in facts.items() if value}
