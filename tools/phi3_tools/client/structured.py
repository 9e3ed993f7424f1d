"""The form that a call requests of its answer: how it is sent, and how the answer is checked.

A contract with fields for it (`openai`) sends `response_format`, `tools` and `tool_choice`. For the other
contracts the schema and the tools are written into the system message, and earlier calls and their
results into plain text. In both cases the answer is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidAnswerError
from .messages import Message, Reply
from .params import Params
from .schemas import SEARCHED_LIMIT, AnswerFormat, ProblemsError, read_answer_format, validate
from .tool_calls import (
    AUTO,
    CALL_START,
    NONE,
    REQUIRED,
    ToolCall,
    call_text,
    read_arguments,
    read_tool_choice,
    read_tools,
    result_text,
    split_calls,
)

REQUEST, PROMPT = "request", "prompt"  # values of `Reply.schema_in`
LENGTH = "length"  # finish reason of an answer that reached its limit of tokens
TOOL_CALLS = "tool_calls"  # finish reason of an answer with calls

_JSON_ONLY = "Answer only with a JSON object, without any other text."
_SCHEMA = "Answer only with JSON that fits this JSON schema, without any other text:\n{schema}"
_TOOLS = """You can call these tools:
<tools>
{tools}
</tools>
To call a tool, answer with {call}. You get the result in the next message."""
_CALL_EXAMPLE = '<tool_call>{"name": "NAME", "arguments": {…}}</tool_call>'
_REPAIR = "Your answer is not valid: {problem}. Answer again, and correct this."


@dataclass(frozen=True)
class Structure:
    """What a call requests of its answer.

    Attributes:
        answer_format: form of the answer's text, or None for any text.
        tools: tool name -> definition; empty if the model may not call tools.
        choice: `none`, `auto`, `required`, or the name of the tool that must be called.
        schema_in: `REQUEST` if the contract has fields for them, otherwise `PROMPT`.
    """

    answer_format: AnswerFormat | None
    tools: Mapping[str, Mapping[str, Any]]
    choice: str
    schema_in: str

    @property
    def added_text(self) -> str:
        """The text that is added to the prompt: by the client, or by the endpoint's chat template."""
        if self.schema_in == PROMPT:
            return "\n\n".join(self._instructions())
        return "\n".join(map(_json, self.tools.values()))

    def place(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages to send, with the instructions if the contract has no fields for them."""
        if self.schema_in == REQUEST:
            return list(messages)
        return _with_instructions(plain_messages(messages), self.added_text)

    def read(self, reply: Reply, redact: Callable[[str], str] = str) -> Reply:
        """Return the reply with its parsed value and its tool calls.

        Args:
            reply: the reply.
            redact: function that returns a text without the endpoint's key, for the error's message.

        Raises:
            InvalidAnswerError: the answer does not fit.
        """
        try:
            return self._read(reply, redact)
        except ProblemsError as error:
            problem = redact(str(error))
            message, hint = f"the model's answer is not valid: {problem}", None
            if reply.finish_reason == LENGTH:
                message = (
                    f"the model's answer reached its limit of tokens and is not complete: {problem}"
                )
                hint = "Raise `max_new_tokens`."
            raise InvalidAnswerError(
                message, text=answer_text(reply), reply=reply, hint=hint
            ) from None

    def _read(self, reply: Reply, redact: Callable[[str], str]) -> Reply:
        reply = replace(reply, schema_in=self.schema_in)
        if self.schema_in == PROMPT and self.tools and self.choice != NONE:
            text, calls = split_calls(reply.text)
            reason = TOOL_CALLS if calls else reply.finish_reason
            reply = replace(reply, text=text, tool_calls=calls, finish_reason=reason)
        self._check_calls(reply.tool_calls, redact)
        if self.answer_format is None or reply.tool_calls:
            return reply
        return replace(reply, parsed=self.answer_format.parse(reply.text, redact))

    def _check_calls(self, calls: Sequence[ToolCall], redact: Callable[[str], str]) -> None:
        if self.choice == NONE and calls:
            raise ProblemsError("it calls a tool, but tool_choice is none")
        for call in calls:
            if call.name not in self.tools:
                known = ", ".join(self.tools) or "none"
                name = redact(call.name[:SEARCHED_LIMIT])[:80]
                raise ProblemsError(f"it calls {name!r}, but the tools are: {known}")
            try:
                arguments = read_arguments(call.arguments_json)
                validate(arguments, self.tools[call.name]["parameters"], redact)
            except ProblemsError as error:
                raise ProblemsError(f"the arguments of {call.name}: {error}") from None
        if self.choice == REQUIRED and not calls:
            raise ProblemsError("it calls no tool, but a call is required")
        if self._named_tool and not calls:
            raise ProblemsError(f"it does not call {self.choice}, which is required")
        if self._named_tool and any(call.name != self.choice for call in calls):
            raise ProblemsError(f"it calls another tool than {self.choice}, which is required")

    @property
    def _named_tool(self) -> str | None:
        return None if self.choice in (NONE, AUTO, REQUIRED) else self.choice

    def _instructions(self) -> Iterator[str]:
        if self.tools and self.choice != NONE:
            yield _TOOLS.format(
                tools="\n".join(map(_json, self.tools.values())), call=_CALL_EXAMPLE
            )
            if self.choice == REQUIRED:
                yield "Call at least one tool."
            elif self._named_tool:
                yield f"Call the tool {self._named_tool}."
        if self.answer_format and self.answer_format.schema is not None:
            yield _SCHEMA.format(schema=_json(self.answer_format.schema))
        elif self.answer_format:
            yield _JSON_ONLY


def read_structure(params: Params, *, has_fields: bool) -> Structure | None:
    """Return what the parameters request of an answer; None if they request nothing.

    Args:
        params: generation parameters.
        has_fields: whether the endpoint's contract has fields for schemas and tools.
    """
    answer_format = read_answer_format(params.response_format)
    tools = read_tools(params.tools)
    if answer_format is None and not tools:
        return None
    choice = read_tool_choice(params.tool_choice, tools)
    return Structure(answer_format, tools, choice, REQUEST if has_fields else PROMPT)


def answer_text(reply: Reply) -> str:
    """Return an answer as text, with its tool calls in the generic format."""
    return "\n".join(
        filter(None, [reply.text, *(call_text(c.as_dict()) for c in reply.tool_calls)])
    )


def repair_messages(error: InvalidAnswerError) -> list[Message]:
    """Return the messages that ask the model to correct an answer."""
    problem = error.message.removeprefix("the model's answer is not valid: ")
    return [
        {"role": "assistant", "content": error.text},
        {"role": "user", "content": _REPAIR.format(problem=problem)},
    ]


def can_repair(error: InvalidAnswerError) -> bool:
    """Return whether a second attempt may help: not if the limit of tokens was reached."""
    return not (isinstance(error.reply, Reply) and error.reply.finish_reason == LENGTH)


def plain_messages(messages: Iterable[Message]) -> list[Message]:
    """Return messages for a contract without tools: calls and results become text."""
    plain: list[Message] = []
    follows_result = False
    for message in messages:
        role, content = message["role"], message["content"]
        if calls := message.get("tool_calls"):
            content = "\n".join(filter(None, [content, *map(call_text, calls)]))
        if role == "tool":
            content = result_text(content)
            if follows_result:  # results of one answer share a user turn, so that roles alternate
                content = f"{plain.pop()['content']}\n{content}"
        follows_result = role == "tool"
        plain.append({"role": "user" if role == "tool" else role, "content": content})
    return plain


def visible_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces of an answer up to its first tool call in the generic format."""
    held = ""
    for piece in pieces:
        held += piece
        before, mark, _ = held.partition(CALL_START)
        if mark:
            if before:
                yield before
            for _ in pieces:
                pass  # read to the end, so that the reply is complete
            return
        kept = _partial_mark(held)
        if shown := held[: len(held) - kept]:
            yield shown
        held = held[len(held) - kept :]
    if held:
        yield held


def _partial_mark(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a call."""
    lengths = range(min(len(text), len(CALL_START) - 1), 0, -1)
    return next((n for n in lengths if CALL_START.startswith(text[-n:])), 0)


def _with_instructions(messages: list[Message], instructions: str) -> list[Message]:
    """Return the messages with the instructions at the end of the first system message."""
    if not instructions:
        return messages
    if messages and messages[0]["role"] == "system":
        content = f"{messages[0]['content']}\n\n{instructions}"
        return [{"role": "system", "content": content}, *messages[1:]]
    return [{"role": "system", "content": instructions}, *messages]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)
