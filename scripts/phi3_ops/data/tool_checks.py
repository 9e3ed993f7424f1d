"""Check rows with tools, tool calls and results, and rows whose answers have a schema.

The fields are those of OpenAI's "Chat completions" reference: a row's `tools` and `response_format`, an
assistant's `tool_calls`, and messages with the role `tool`. A problem names the field.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from ..errors import OpsError
from ..installation import install_command

# Reasons for a rejection, as the table and the manifest name them.
TOOLS = "wrong tools"
CALLS = "wrong tool calls"
RESULTS = "calls and results differ"
SCHEMA = "answer not by its schema"

Message = dict[str, Any]


class ToolProblem(NamedTuple):
    """A problem of a row: its reason, which is counted, and a description that names the field."""

    reason: str
    detail: str


class _ProblemError(Exception):
    """Carries the problem of a row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = ToolProblem(reason, detail)


def find_tool_problem(row: Mapping[str, Any]) -> ToolProblem | None:
    """Return the first problem of a row's tools, calls, results and schema; None if all are valid.

    Args:
        row: a row whose `messages` are a list of objects.
    """
    messages = row["messages"]
    try:
        parameters = dict(_parameters(read_tools(row)))
        for number, message in enumerate(messages):
            if message.get("tool_calls"):
                _check_calls(message["tool_calls"], parameters, f"messages[{number}]")
        _check_results(messages)
        _check_answers(messages, row.get("response_format"))
    except _ProblemError as error:
        return error.problem
    return None


def read_tools(row: Mapping[str, Any]) -> Any:
    """Return a row's tools; a text is parsed, because tables often have them as JSON."""
    tools = row.get("tools")
    if not isinstance(tools, str):
        return tools or []
    try:
        return orjson.loads(tools)
    except orjson.JSONDecodeError:
        raise _ProblemError(TOOLS, "tools is a text that is not JSON") from None


def expected_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of a checked message as names and arguments, as the score of calls takes them."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return [
        {"name": function["name"], "arguments": _read_arguments(function.get("arguments"))}
        for function in functions
    ]


def answer_schema(row: Mapping[str, Any]) -> Any:
    """Return the schema of the answers of a checked row; None without one."""
    response_format = row.get("response_format") or {}
    return response_format["json_schema"]["schema"] if _has_schema(response_format) else None


def _parameters(tools: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and schema of the parameters of each tool."""
    if not isinstance(tools, list):
        raise _ProblemError(TOOLS, "tools is not a list")
    for number, tool in enumerate(tools):
        field = f"tools[{number}].function"
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping):
            raise _ProblemError(TOOLS, f"{field} is missing")
        name, schema = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not name:
            raise _ProblemError(TOOLS, f"{field}.name is missing")
        if schema is not None:
            _check_schema(schema, f"{field}.parameters", TOOLS)
        yield name, schema


def _check_schema(schema: Any, field: str, reason: str) -> None:
    from phi3_tools import ConfigError
    from phi3_tools.client import check_schema

    try:
        check_schema(schema, field)
    except ConfigError as error:
        if "is not installed" in str(error):
            what = "the package jsonschema-rs is not installed"
            raise OpsError(what, install_command("schemas")) from error
        raise _ProblemError(reason, error.message) from None


def _check_value(value: Any, schema: Any, field: str, reason: str) -> None:
    from phi3_tools.client import ProblemsError, validate

    try:
        validate(value, schema)
    except ProblemsError as error:
        raise _ProblemError(reason, f"{field}: {error}") from None


def _check_calls(calls: Any, parameters: Mapping[str, Any], message: str) -> None:
    if not isinstance(calls, list):
        raise _ProblemError(CALLS, f"{message}.tool_calls is not a list")
    for number, call in enumerate(calls):
        field = f"{message}.tool_calls[{number}].function"
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str):
            raise _ProblemError(CALLS, f"{field}.name is missing")
        if name not in parameters:
            raise _ProblemError(CALLS, f"{field}.name is not the name of one of the row's tools")
        arguments = _read_arguments(function.get("arguments"))
        if not isinstance(arguments, dict):
            raise _ProblemError(CALLS, f"{field}.arguments is not a JSON object")
        if parameters[name] is not None:
            _check_value(arguments, parameters[name], f"{field}.arguments", CALLS)


def _read_arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
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


def _check_results(messages: Sequence[Message]) -> None:
    """Check that the results of all calls follow them, before any other message."""
    pending = _PendingCalls()
    for number, message in enumerate(messages):
        field = f"messages[{number}]"
        if message["role"] == "tool":
            answered = message.get("tool_call_id")
            if not pending.answer(answered):
                raise _ProblemError(
                    RESULTS, f"{field} (tool) is not the result of a call before it"
                )
        elif pending:
            raise _ProblemError(RESULTS, f"{field} comes before the results of all calls")
        elif message.get("tool_calls"):
            pending = _PendingCalls(call.get("id") for call in message["tool_calls"])
    if pending:
        field = f"messages[{len(messages) - 1}].tool_calls"
        raise _ProblemError(RESULTS, f"{field}: no message has the result of a call")


def _check_answers(messages: Sequence[Message], response_format: Any) -> None:
    """Check that the assistant's texts are those that `response_format` asks for."""
    schema = _checked_schema(response_format)
    if schema is None:
        return
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("tool_calls"):
            continue
        field = f"messages[{number}].content"
        try:
            value = orjson.loads(message["content"])
        except orjson.JSONDecodeError:
            raise _ProblemError(SCHEMA, f"{field} is not JSON") from None
        _check_value(value, schema, field, SCHEMA)


def _checked_schema(response_format: Any) -> Any:
    """Return the schema that `response_format` gives for the answers; None if they are plain texts."""
    if not response_format:
        return None
    if not isinstance(response_format, Mapping):
        raise _ProblemError(SCHEMA, "response_format is not an object")
    kind = response_format.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        what = "response_format.type is not text, json_object or json_schema"
        raise _ProblemError(SCHEMA, what)
    if not _has_schema(response_format):
        return {"type": "object"} if kind == "json_object" else None
    json_schema = response_format.get("json_schema")
    if not isinstance(json_schema, Mapping):
        raise _ProblemError(SCHEMA, "response_format.json_schema is not an object")
    if json_schema.get("schema") is None:
        raise _ProblemError(SCHEMA, "response_format.json_schema.schema is missing")
    _check_schema(json_schema["schema"], "response_format.json_schema.schema", SCHEMA)
    return json_schema["schema"]


def _has_schema(response_format: Mapping[str, Any]) -> bool:
    return response_format.get("type") == "json_schema"
