"""A reply in the form of an OpenAI chat completion, for programs that read tokens from that form."""

from __future__ import annotations

from .messages import Reply


class _Usage(dict[str, int]):
    def dict(self) -> dict[str, int]:
        return {**self}


class ChatCompletion(dict[str, object]):
    """A reply in the form of a chat completion.

    Prompt flow's run metrics read `completion["usage"]`, and its trace view reads
    `completion.usage.dict()`.
    """

    def __init__(self, reply: Reply) -> None:
        choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish_reason}
        super().__init__(object="chat.completion", model=reply.model or "phi-3", choices=[choice])
        self.usage = _Usage(reply.usage.as_dict()) if reply.usage else None
        if self.usage:
            self["usage"] = self.usage
