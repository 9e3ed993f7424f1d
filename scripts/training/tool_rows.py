"""Rows with tools: check their calls and results, and write them as plain messages.

The checks are those that a training needs. `phi3 data` also checks the arguments by their schemas.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tool_format import CALL_MARKS, GENERIC, PHI4_MINI, plain_messages, template_format

PHI4_MINI_NAME = "phi-4-mini"
TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")


def model_format(model: str) -> str:
    """Return the format of tools for a model, before its tokenizer is loaded.

    Args:
        model: folder or hub id. Of a hub id, only the name is known here, see `is_in_format`.
    """
    folder = Path(model)
    if not folder.is_dir():
        return PHI4_MINI if PHI4_MINI_NAME in model.lower() else GENERIC
    files = [folder / name for name in TEMPLATE_FILES if (folder / name).is_file()]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return PHI4_MINI if any(template_format(text) == PHI4_MINI for text in texts) else GENERIC


def is_in_format(rows: Iterable[dict[str, Any]], model: str, template: str) -> bool:
    """Return whether the calls in plain rows have the format that a chat template needs."""
    expected, written = template_format(template), model_format(model)
    mark = CALL_MARKS[written][0]
    return expected == written or not any(
        mark in message["content"]
        for row in rows
        for message in row["messages"]
        if message["role"] == "assistant"
    )


def find_problem(messages: Sequence[Any], tools: Any) -> str | None:
    """Return the first problem of a row's tools, calls and results, or None if they are valid.

    Args:
        messages: messages of the row.
        tools: the row's `tools`, or None.
    """
    try:
        parsed_tools = parse_tools(tools)
    except ValueError:
        return "`tools` is a text that is not JSON"
    if not isinstance(parsed_tools, list):
        return "`tools` is not a list"
    names = set()
    for number, tool in enumerate(parsed_tools, 1):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            return f"tool {number} has no function.name"
        names.add(name)
    for number, message in enumerate(messages, 1):
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if calls and (problem := _find_call_problem(calls, names)):
            return f"message {number}: {problem}"
    return _find_unanswered(messages)


def parse_tools(tools: Any) -> Any:
    """Return a row's tools; a text is parsed, because tables often have them as JSON.

    Raises:
        ValueError: the text is not JSON.
    """
    return json.loads(tools) if isinstance(tools, str) else [] if tools is None else tools


def _find_call_problem(calls: Any, names: set[str]) -> str | None:
    for number, call in enumerate(calls if isinstance(calls, list) else [None], 1):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or function.get("name") not in names:
            return f"call {number} names a tool that the row does not have"
        arguments = function.get("arguments")
        arguments = {} if arguments is None or arguments == "" else arguments
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return f"the arguments of call {number} are not a JSON object"
    return None


class _PendingCalls:
    """The calls without a result. Each result takes the same time, however many calls there are.

    Args:
        ids: ids of the calls; a call may have none.
    """

    def __init__(self, ids: Iterable[Any] = ()) -> None:
        self._ids = [repr(call_id) for call_id in ids]
        self._numbers: dict[str, deque[int]] = {}  # id -> numbers of its calls without a result
        for number, call_id in enumerate(self._ids):
            self._numbers.setdefault(call_id, deque()).append(number)
        self._answered: set[int] = set()
        self._first = 0

    def __bool__(self) -> bool:
        return len(self._answered) < len(self._ids)

    def answer(self, call_id: Any) -> bool:
        """Take the result of a call, and return whether it is one of these; None is the first one."""
        while self._first in self._answered:
            self._first += 1
        key = self._ids[self._first] if call_id is None and self else repr(call_id)
        if not (numbers := self._numbers.get(key)):
            return False
        self._answered.add(numbers.popleft())
        return True


def _find_unanswered(messages: Sequence[Any]) -> str | None:
    """Return a problem if calls and the results after them do not correspond."""
    pending = _PendingCalls()
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool":
            if not pending.answer(message.get("tool_call_id")):
                return f"message {number} (tool) is not the result of a call"
        elif pending:
            return f"message {number} comes before the result of every call"
        elif message.get("tool_calls"):
            pending = _PendingCalls(call.get("id") for call in message["tool_calls"])
    return "the last call has no result" if pending else None


def write_row(row: dict[str, Any], tool_format: str) -> dict[str, Any]:
    """Return a row that has plain messages only; see `tool_format.plain_messages`."""
    return {"messages": plain_messages(row["messages"], parse_tools(row.get("tools")), tool_format)}
