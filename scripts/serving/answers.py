"""Shapes the answers of the three contracts (see `payloads`). Pure but for an id and the time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generation import Completion
from payloads import ScoringRequest


def list_answer(texts: Sequence[str], completions: Sequence[Completion], full: bool) -> list[str]:
    """Return the answer of the "list" contract: an array of strings.

    Args:
        texts: the request's texts.
        completions: the model's answer to each text.
        full: whether each answer starts with its text.
    """
    return [
        (text if full else "") + completion.text for text, completion in zip(texts, completions)
    ]


@dataclass(frozen=True)
class ChatAnswer:
    """Builds the answer to one "catalog" or "openai" request, in one piece or as events.

    Attributes:
        request: the request that is answered.
        model: name of the model.
        prompt_tokens: number of tokens of the prompt.
        id: id of the answer, the same in all of its events.
        created: time of the answer in seconds since 1970, the same in all of its events.
    """

    request: ScoringRequest
    model: str
    prompt_tokens: int
    id: str
    created: int

    @classmethod
    def start(cls, request: ScoringRequest, model: str, prompt_tokens: int) -> ChatAnswer:
        """Return a new answer, with an id and the current time."""
        answer_id = f"chatcmpl-{uuid.uuid4().hex}"
        return cls(request, model, prompt_tokens, answer_id, int(time.time()))

    def full_body(self, completion: Completion) -> dict[str, Any]:
        """Return the answer in one piece."""
        if self.request.contract == "catalog":
            return {"output": completion.text, **self._catalog_end(completion)}
        message = {"role": "assistant", "content": completion.text}
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": self._usage(completion)}

    def first_events(self) -> list[dict[str, Any]]:
        """Return the events before the first text."""
        if self.request.contract == "catalog":
            return []
        return [self._chunk({"role": "assistant", "content": ""})]

    def text_event(self, text: str) -> dict[str, Any]:
        """Return the event of a piece of text."""
        if self.request.contract == "catalog":
            return {"output": text}
        return self._chunk({"content": text})

    def last_events(self, completion: Completion) -> list[dict[str, Any]]:
        """Return the events after the last text."""
        if self.request.contract == "catalog":
            return [{"output": "", **self._catalog_end(completion)}]
        events = [self._chunk({}, completion.finish_reason)]
        if self.request.include_usage:
            head, usage = self._head("chat.completion.chunk"), self._usage(completion)
            events.append({**head, "choices": [], "usage": usage})
        return events

    def _catalog_end(self, completion: Completion) -> dict[str, Any]:
        return {
            "finish_reason": completion.finish_reason,
            "usage": self._usage(completion),
            "model": self.model,
            "id": self.id,
        }

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self, completion: Completion) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion.tokens,
            "total_tokens": self.prompt_tokens + completion.tokens,
        }
