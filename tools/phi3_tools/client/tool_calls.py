"""Tools that a model may call: their definitions, the calls in answers, and calls as plain text.

Contract: OpenAI's "Chat completions" reference (`tools`, `tool_choice`, `tool_calls`). The plain text is
the generic format of many chat templates: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadAnswerError, ConfigError, well_formed
from .schemas import ProblemsError, check_schema, describe
from .wire_json import parse_json

MAX_TOOLS = 128
MAX_CALLS = 128  # calls in one answer
NONE, AUTO, REQUIRED = "none", "auto", "required"  # values of `tool_choice`
CALL_START, CALL_END = "<tool_call>", "</tool_call>"
RESULT_START, RESULT_END = "<tool_response>", "</tool_response>"
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DECODER = json.JSONDecoder()
_RESULT_MARK = re.compile(r"<(?=/?tool_response>)")


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        id: id of the call, which the message with its result repeats.
        name: name of the tool.
        arguments_json: the arguments, as the model wrote them.
    """

    id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            BadAnswerError: the model wrote something other than a JSON object. This cannot happen for a
                reply to a request with `tools`, because its arguments have been validated.
        """
        try:
            return read_arguments(self.arguments_json)
        except ProblemsError as error:
            raise BadAnswerError(f"the arguments of {self.name}: {error}", hint="") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the call as an item of a message's `tool_calls`."""
        function = {"name": self.name, "arguments": self.arguments_json}
        return {"id": self.id, "type": "function", "function": function}


def read_arguments(text: str) -> dict[str, Any]:
    """Return the arguments in a JSON text; an empty text has none.

    Raises:
        ProblemsError: the text is not a JSON object.
    """
    try:
        value = parse_json(text.strip() or "{}")
    except ValueError as error:
        raise ProblemsError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProblemsError(f"{describe(value)}, not a JSON object")
    return value


# -- definitions -----------------------------------------------------------------------------------


def read_tools(tools: Any) -> dict[str, dict[str, Any]]:
    """Return tool name -> definition (`name`, `description`, `parameters`).

    Args:
        tools: list of `{"type": "function", "function": {…}}`, or None.

    Raises:
        ConfigError: a tool is not valid; the message names the field.
    """
    if tools is None:
        return {}
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise ConfigError(f"tools is {describe(tools)}, but must be a list of tools")
    if len(tools) > MAX_TOOLS:
        raise ConfigError(f"tools has {len(tools)} items; at most {MAX_TOOLS} are allowed")
    definitions: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function"
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if kind != "function" or not isinstance(function, Mapping):
            form = '{"type": "function", "function": {"name": …, "parameters": …}}'
            raise ConfigError(f"tools[{index}] must have the form {form}")
        name = _tool_name(function.get("name"), where)
        if name in definitions:
            raise ConfigError(f"{where}.name is {name!r}, which another tool already has")
        parameters = function.get("parameters")
        if parameters is not None:
            check_schema(parameters, f"{where}.parameters")
        definitions[name] = {**function, "parameters": parameters or NO_PARAMETERS}
    return definitions


def _tool_name(name: Any, where: str) -> str:
    if name in (None, ""):
        raise ConfigError(f"{where}.name is missing")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "1 to 64 letters, digits, `_` and `-`"
        raise ConfigError(f"{where}.name is {str(name)[:80]!r}, but must consist of {rule}")
    return name


def read_tool_choice(choice: Any, names: Iterable[str]) -> str:
    """Return `none`, `auto`, `required`, or the name of the tool that must be called.

    Args:
        choice: the value of `tool_choice`; None means `auto`.
        names: names of the tools.

    Raises:
        ConfigError: it is not a valid choice, or it names a tool that does not exist.
    """
    known = list(names)
    if choice is None:
        return AUTO
    if not known:
        raise ConfigError("tool_choice is set, but there are no tools", hint="Give `tools`.")
    if choice in (NONE, AUTO, REQUIRED):
        return str(choice)
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        forms = '"none", "auto", "required" or {"type": "function", "function": {"name": …}}'
        raise ConfigError(f"tool_choice is {str(choice)[:80]!r}, but must be {forms}")
    if name not in known:
        raise ConfigError(
            f"tool_choice names {name[:80]!r}, which is not one of {', '.join(known)}"
        )
    return name


# -- calls in messages -----------------------------------------------------------------------------


def read_message_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Return the `tool_calls` of an assistant's message, checked.

    Args:
        calls: list of `ToolCall` or of items of OpenAI's `tool_calls`.
        where: name of the message, for errors.

    Raises:
        ConfigError: a call is not valid; the message names the field.
    """
    if not isinstance(calls, (list, tuple)):
        raise ConfigError(f"{where}: tool_calls is {describe(calls)}, but must be a list")
    checked: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        item = call.as_dict() if isinstance(call, ToolCall) else call
        field = f"{where}: tool_calls[{index}]"
        function = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(item.get("id"), str):
            raise ConfigError(f"{field} must have an `id` and a `function`")
        name = _tool_name(function.get("name"), f"{field}.function")
        arguments = function.get("arguments", "{}")
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if not isinstance(arguments, str):
            raise ConfigError(f"{field}.function.arguments is {describe(arguments)}, not a text")
        checked.append(ToolCall(item["id"], name, arguments).as_dict())
    return checked


# -- calls in answers ------------------------------------------------------------------------------


def decode_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the calls in a message of an answer. Items of another form are left out."""
    collector = CallCollector()
    collector.add(message.get("tool_calls"), is_complete=True)
    return collector.calls()


class CallCollector:
    """Puts together the calls of a stream, whose arguments arrive in pieces."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, Any]] = {}

    def add(self, deltas: Any, *, is_complete: bool = False) -> None:
        """Add the `tool_calls` of one event.

        A piece without an index belongs to the last call, or begins a call if it has an id.

        Args:
            deltas: the value of `tool_calls`; a value of another form is ignored.
            is_complete: whether each item is a complete call.

        Raises:
            BadAnswerError: there are more than `MAX_CALLS` calls.
        """
        for delta in deltas if isinstance(deltas, (list, tuple)) else ():
            function = delta.get("function") if isinstance(delta, Mapping) else None
            if not isinstance(function, Mapping):
                continue
            last = max(self._parts, default=-1)
            index = delta.get("index")
            if is_complete or not isinstance(index, int):
                index = last + 1 if is_complete or delta.get("id") or last < 0 else last
            part = self._parts.setdefault(index, {"id": "", "name": "", "arguments": []})
            if len(self._parts) > MAX_CALLS:
                raise BadAnswerError(f"the answer has more than {MAX_CALLS} tool calls", hint="")
            part["id"] = part["id"] or _text(delta.get("id"))
            part["name"] += _text(function.get("name"))
            part["arguments"].append(_arguments_text(function.get("arguments")))

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls so far, in the order of their indexes."""
        return tuple(
            ToolCall(
                id=well_formed(part["id"]) or f"call_{number}",
                name=well_formed(part["name"]),
                arguments_json=well_formed("".join(part["arguments"])),
            )
            for number, (_, part) in enumerate(sorted(self._parts.items()))
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments_text(value: Any) -> str:
    """Return arguments as text; some servers send the object itself."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else _text(value)


# -- calls as plain text ---------------------------------------------------------------------------


def call_text(call: Mapping[str, Any]) -> str:
    """Return an item of `tool_calls` in the generic format."""
    function = call["function"]
    name = json.dumps(function["name"])
    return f'{CALL_START}{{"name": {name}, "arguments": {function["arguments"] or "{}"}}}{CALL_END}'


def result_text(content: str) -> str:
    """Return the result of a call in the generic format; marks inside it are broken up."""
    return f"{RESULT_START}\n{_RESULT_MARK.sub('< ', content)}\n{RESULT_END}"


def split_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return an answer without the calls in it, and the calls.

    The last call may lack its end mark, because many models end their answer instead.

    Raises:
        ProblemsError: a call is not `{"name": …, "arguments": {…}}`, or there are more than `MAX_CALLS`
            calls.
    """
    texts: list[str] = []
    calls: list[ToolCall] = []
    position = 0
    while (start := text.find(CALL_START, position)) >= 0:
        number = len(calls) + 1
        if number > MAX_CALLS:
            raise ProblemsError(f"it has more than {MAX_CALLS} tool calls")
        texts.append(text[position:start])
        body, position = _call_body(text, start + len(CALL_START))
        try:
            item = read_arguments(body)
        except ProblemsError as error:
            raise ProblemsError(f"the call {number} is {error}") from None
        name, arguments = item.get("name"), item.get("arguments", item.get("parameters", {}))
        if not isinstance(name, str):
            raise ProblemsError(f"the call {number} has no `name`")
        calls.append(ToolCall(f"call_{number - 1}", name, _arguments_text(arguments)))
    texts.append(text[position:])
    return "".join(texts).strip() if calls else text, tuple(calls)


def _call_body(text: str, start: int) -> tuple[str, int]:
    """Return the text of the call that begins at an index, and the index after the call.

    A mark inside the call's JSON belongs to the JSON.
    """
    leading_spaces = len(text[start:]) - len(text[start:].lstrip())
    try:
        _, json_end = _DECODER.raw_decode(text, start + leading_spaces)
    except (ValueError, RecursionError):  # `read_arguments` reports it
        json_end = start
    end, next_start = text.find(CALL_END, json_end), text.find(CALL_START, json_end)
    if end < 0 or 0 <= next_start < end:
        body_end = next_start if next_start >= 0 else len(text)
        return text[start:body_end], body_end
    return text[start:end], end + len(CALL_END)
