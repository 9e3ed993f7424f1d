"""Finds the tool calls in an answer's text, while it is generated."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from generation import overlap
from tool_format import CALL_MARKS

# The grammar of an answer (see `grammars`) writes each call like this. Its arguments are an object.
CALL_HEAD = re.compile(r'\{"name": "([^"]*)", "arguments": ')


@dataclass
class ToolCall:
    """A call in an answer.

    Attributes:
        index: index of the call in the answer.
        name: name of the function.
        arguments: JSON of the arguments. It is incomplete while the answer is, and after an answer whose
            `finish_reason` is "length".
        id: id of the call, which the result refers to.
    """

    index: int
    name: str
    arguments: str = ""
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")

    @property
    def body(self) -> dict[str, Any]:
        """The call in the shape of "OpenAI API reference: chat completions"."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


Delta = dict[str, Any]


class ToolCallReader:
    """Splits an answer into its text and its calls, piece by piece.

    Attributes:
        text: the text before the calls.
        calls: the calls.

    Args:
        tool_format: the model's format of tools, see `tool_format.template_format`.
        has_free_text: whether any text can come before the calls. Otherwise an answer that does not
            start with a call has none.
    """

    def __init__(self, tool_format: str, has_free_text: bool = True):
        self.text = ""
        self.calls: list[ToolCall] = []
        self._mark = CALL_MARKS[tool_format][0]
        self._is_text = True
        self._can_call = True
        self._has_free_text = has_free_text
        self._open: ToolCall | None = None  # the call whose arguments are being read
        self._json = _JsonEnd()
        self._held_back = ""

    def add(self, piece: str) -> Iterator[Delta]:
        """Add a piece of text. Yield the changes of the answer, in OpenAI's shape of a delta."""
        self._held_back += piece
        if self._is_text:
            yield from self._read_text()
        if not self._is_text:
            yield from self._read_calls()

    def flush(self) -> Iterator[Delta]:
        """Yield the text that was held back and did not become a call. The answer has ended."""
        if self._is_text and self._held_back:
            yield self._text_delta(self._held_back)
        self._held_back = ""

    def _read_text(self) -> Iterator[Delta]:
        start = self._held_back[: len(self._mark)]
        if not self._has_free_text and not self._mark.startswith(start):
            self._can_call = False
        if not self._can_call:
            text, self._held_back = self._held_back, ""
            yield self._text_delta(text)
            return
        text, mark, rest = self._held_back.partition(self._mark)
        if mark:
            self._is_text, self._held_back = False, rest
            text = text.rstrip("\n")  # the line break before the first call
        else:
            end = len(text) - overlap(text, self._mark)
            end = len(text[:end].rstrip("\n"))
            text, self._held_back = text[:end], text[end:]
        if text:
            yield self._text_delta(text)

    def _text_delta(self, text: str) -> Delta:
        self.text += text
        return {"content": text}

    def _read_calls(self) -> Iterator[Delta]:
        while self._held_back:
            if self._open is None:
                head = CALL_HEAD.search(self._held_back)
                if head is None:
                    return
                self._held_back = self._held_back[head.end() :]
                yield self._start_call(head[1])
            else:
                length, is_end = self._json.find(self._held_back)
                arguments, self._held_back = self._held_back[:length], self._held_back[length:]
                yield self._add_arguments(self._open, arguments)
                if is_end:
                    self._open = None

    def _start_call(self, name: str) -> Delta:
        self._open = ToolCall(len(self.calls), name)
        self._json = _JsonEnd()
        self.calls.append(self._open)
        return {"tool_calls": [{"index": self._open.index, **self._open.body}]}

    def _add_arguments(self, call: ToolCall, arguments: str) -> Delta:
        call.arguments += arguments
        return {"tool_calls": [{"index": call.index, "function": {"arguments": arguments}}]}


class _JsonEnd:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def find(self, piece: str) -> tuple[int, bool]:
        """Return how many characters of the piece belong to the object, and whether it has ended."""
        for position, char in enumerate(piece, 1):
            if self._in_string:
                self._in_string = self._is_escaped or char != '"'
                self._is_escaped = char == "\\" and not self._is_escaped
            elif char == '"':
                self._in_string = True
            else:
                self._depth += (char in "{[") - (char in "}]")
                if not self._depth:
                    return position, True
        return len(piece), False
