"""Shapes the answers of the three contracts (see `payloads`). Pure but for an id and the time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from generation import INCOMPLETE, Completion
from payloads import ScoringRequest
from tool_calls import ToolCallReader
from tool_format import GENERIC

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


@dataclass
class ChatAnswer:
    """Builds the answer to one "catalog" or "openai" request, in one piece or as events.

    Attributes:
        request: the request that is answered.
        model: name of the model.
        prompt: token ids of the prompt.
        id: id of the answer, the same in all of its events.
        created: time of the answer in seconds since 1970, the same in all of its events.
        tool_format: the model's format of tools, see `tool_format.template_format`.
        stream_reader: reads the calls of an answer that is streamed.
    """

    request: ScoringRequest
    model: str
    prompt: Sequence[int]
    id: str
    created: int
    tool_format: str = GENERIC

    def __post_init__(self) -> None:
        self.stream_reader = _call_reader(self.request, self.tool_format)

    @classmethod
    def start(
        cls, request: ScoringRequest, model: str, prompt: Sequence[int], tool_format: str = GENERIC
    ) -> ChatAnswer:
        """Return a new answer, with an id and the current time."""
        answer_id = f"chatcmpl-{uuid.uuid4().hex}"
        return cls(request, model, prompt, answer_id, int(time.time()), tool_format)

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

    def text_events(self, text: str) -> list[dict[str, Any]]:
        """Return the events of a piece of text, which can be a part of a tool call."""
        if self.request.contract == "catalog":
            return [{"output": text}]
        if not self.request.answer_format.tools:
            return [self._chunk({"content": text})]
        return self._delta_events(self.stream_reader.add(text))

    def last_events(self, completion: Completion) -> list[dict[str, Any]]:
        """Return the events after the last text."""
        if self.request.contract == "catalog":
            return [{"output": "", **self._catalog_end(completion)}]
        events = self._delta_events(self.stream_reader.flush())
        events.append(self._chunk({}, _finish_reason(completion, self.stream_reader)))
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
        message: dict[str, Any] = {"role": "assistant", "content": completion.text}
        reader = _call_reader(self.request, self.tool_format)
        if self.request.answer_format.tools:
            deltas = [*reader.add(completion.text), *reader.flush()]
            message["content"] = reader.text if reader.text or not deltas else None
            if reader.calls:
                message["tool_calls"] = [call.body for call in reader.calls]
        finish_reason = _finish_reason(completion, reader)
        choice = {"index": index, "message": message, "finish_reason": finish_reason}
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

    def _delta_events(self, deltas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._chunk(delta) for delta in deltas]

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
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


def _call_reader(request: ScoringRequest, tool_format: str) -> ToolCallReader:
    return ToolCallReader(tool_format, has_free_text=request.answer_format.schema is None)


def _finish_reason(completion: Completion, reader: ToolCallReader) -> str:
    is_call = reader.calls and completion.finish_reason == "stop"
    return "tool_calls" if is_call else completion.finish_reason


def _describe_token(
    decode: Decode, previous: list[int], token: int, logprob: float
) -> dict[str, Any]:
    """Return the text of a token, and its bytes if it is not a part of a character only."""
    # Some tokenizers (SentencePiece) drop the leading space of the first token.
    before, text = decode(previous), decode([*previous, token])
    text = text[len(before) :] if text.startswith(before) else decode([token])
    is_part = INCOMPLETE in text
    return {"token": text, "logprob": logprob, "bytes": None if is_part else [*text.encode()]}
