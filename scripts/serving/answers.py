"""Shapes the answers of the three contracts (see `payloads`). Pure but for an id and the time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from generation import INCOMPLETE, Completion
from payloads import ScoringRequest

Decode = Callable[[list[int]], str]


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
        prompt: token ids of the prompt.
        id: id of the answer, the same in all of its events.
        created: time of the answer in seconds since 1970, the same in all of its events.
    """

    request: ScoringRequest
    model: str
    prompt: Sequence[int]
    id: str
    created: int

    @classmethod
    def start(cls, request: ScoringRequest, model: str, prompt: Sequence[int]) -> ChatAnswer:
        """Return a new answer, with an id and the current time."""
        answer_id = f"chatcmpl-{uuid.uuid4().hex}"
        return cls(request, model, prompt, answer_id, int(time.time()))

    def full_body(self, completions: Sequence[Completion], decode: Decode) -> dict[str, Any]:
        """Return the answer in one piece.

        Args:
            completions: one per choice.
            decode: function that turns token ids into text, for log probabilities.
        """
        if self.request.contract == "catalog":
            return {"output": completions[0].text, **self._catalog_end(completions[0])}
        choices = [self._choice(index, item, decode) for index, item in enumerate(completions)]
        head = self._head("chat.completion")
        return {**head, "choices": choices, "usage": self._usage(completions)}

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
            head, usage = self._head("chat.completion.chunk"), self._usage([completion])
            events.append({**head, "choices": [], "usage": usage})
        return events

    def _catalog_end(self, completion: Completion) -> dict[str, Any]:
        return {
            "finish_reason": completion.finish_reason,
            "usage": self._usage([completion]),
            "model": self.model,
            "id": self.id,
        }

    def _choice(self, index: int, completion: Completion, decode: Decode) -> dict[str, Any]:
        message = {"role": "assistant", "content": completion.text}
        choice = {"index": index, "message": message, "finish_reason": completion.finish_reason}
        if self.request.params.logprobs is None:
            return choice
        return {**choice, "logprobs": {"content": self._logprobs(completion, decode)}}

    def _logprobs(self, completion: Completion, decode: Decode) -> list[dict[str, Any]]:
        """Return the log probabilities as in "OpenAI API reference: chat completions"."""
        content, previous = [], list(self.prompt[-1:])
        for token in completion.logprobs:
            top = [_describe_token(decode, previous, *other) for other in token.top]
            entry = _describe_token(decode, previous, token.token, token.logprob)
            content.append({**entry, "top_logprobs": top})
            previous = [token.token]
        return content

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _usage(self, completions: Sequence[Completion]) -> dict[str, int]:
        prompt_tokens, tokens = len(self.prompt), sum(item.tokens for item in completions)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        }


def _describe_token(
    decode: Decode, previous: list[int], token: int, logprob: float
) -> dict[str, Any]:
    """Return the text of a token, and its bytes if it is not a part of a character only."""
    # Some tokenizers (SentencePiece) drop the leading space of the first token.
    before, text = decode(previous), decode([*previous, token])
    text = text[len(before) :] if text.startswith(before) else decode([token])
    is_part = INCOMPLETE in text
    return {"token": text, "logprob": logprob, "bytes": None if is_part else [*text.encode()]}
