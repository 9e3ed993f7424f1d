"""Reads the messages of a request, with tool calls and their results where the contract has them.

Source: "OpenAI API reference: chat completions".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from parameters import describe, refuse, refuse_unknown, shorten
from schema_checks import check_nesting

Message = dict[str, Any]
ROLES = ("system", "user", "assistant")
TOOL = "tool"  # the role of a call's result
MESSAGE_FIELDS = ("role", "content")
EXTRA_FIELDS = {"assistant": "tool_calls", TOOL: "tool_call_id"}
NOT_UNICODE = "is not valid Unicode: it contains half of a surrogate pair"


def read_messages(value: Any, name: str, has_tools: bool = False) -> list[Message]:
    """Return the messages of a request.

    Args:
        value: the client's value.
        name: name of the messages' field in the request.
        has_tools: whether messages may have tool calls, and the role `tool`.

    Raises:
        ScoringError: status 400, with the name of the field that is wrong.
    """
    if not isinstance(value, list) or not value:
        refuse(f"{name} must be an array of at least one message", name)
    return [_message(item, f"{name}[{index}]", has_tools) for index, item in enumerate(value)]


def read_conversation(value: Any) -> list[Message]:
    """Return the messages of OpenAI's contract. Each result must belong to an earlier call."""
    messages = read_messages(value, "messages", has_tools=True)
    call_ids: set[str] = set()
    for index, message in enumerate(messages):
        call_ids.update(call["id"] for call in message.get("tool_calls", ()))
        if message["role"] == TOOL and message["tool_call_id"] not in call_ids:
            field = f"messages[{index}].tool_call_id"
            refuse(f"{field} must be the id of a call in an earlier message", field)
    return messages


def check_unicode(text: str, name: str) -> str:
    """Return a text. Refuse half of a surrogate pair, which JSON can contain and tokenizers refuse."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        refuse(f"{name} {NOT_UNICODE}", name)
    return text


def _message(value: Any, name: str, has_tools: bool) -> Message:
    if not isinstance(value, dict):
        refuse(f"{name} must be an object with role and content, not {describe(value)}", name)
    role, roles = value.get("role"), (*ROLES, TOOL) if has_tools else ROLES
    if role not in roles:
        refuse(f"{name}.role must be one of {', '.join(roles)}", f"{name}.role")
    extra_field = EXTRA_FIELDS.get(role, "") if has_tools else ""
    # A client that repeats an answer of another server may send empty fields.
    not_empty = {key: item or None for key, item in value.items()}
    refuse_unknown(not_empty, (*MESSAGE_FIELDS, extra_field), f"{name}.")
    message: Message = {"role": role}
    if extra_field == "tool_calls" and value.get("tool_calls"):
        message["tool_calls"] = _calls(value["tool_calls"], f"{name}.tool_calls")
    elif extra_field == "tool_call_id":
        message["tool_call_id"] = _text(value.get("tool_call_id"), f"{name}.tool_call_id")
    is_call = "tool_calls" in message and value.get("content") is None
    content = "" if is_call else _content(value.get("content"), f"{name}.content")
    return {**message, "content": check_unicode(content, f"{name}.content")}


def _calls(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        refuse(f"{name} must be an array of calls, not {describe(value)}", name)
    return [_call(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _call(value: Any, name: str) -> dict[str, Any]:
    """Return a call. Its arguments are an object, not their JSON."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or value.get("type", "function") != "function":
        refuse(f"{name} must be an object with id, type and function", name)
    refuse_unknown(value, ("id", "type", "function"), f"{name}.")
    refuse_unknown(function, ("name", "arguments"), f"{name}.function.")
    return {
        "id": _text(value.get("id"), f"{name}.id"),
        "function": {
            "name": _text(function.get("name"), f"{name}.function.name"),
            "arguments": _arguments(function.get("arguments"), f"{name}.function.arguments"),
        },
    }


def _arguments(value: Any, name: str) -> dict[str, Any]:
    requirement = f"{name} must be a string: the JSON of an object"
    if not isinstance(value, str):
        refuse(f"{requirement}, not {describe(value)}", name)
    try:
        arguments = json.loads(value)
    except (ValueError, RecursionError):
        refuse(f"{requirement}, not {shorten(value)!r}", name)
    if not isinstance(arguments, dict):
        refuse(f"{requirement}, not {describe(arguments)}", name)
    check_nesting(arguments, name)
    check_unicode(json.dumps(arguments, ensure_ascii=False), name)
    return arguments


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        refuse(f"{name} must be a string that is not empty", name)
    return check_unicode(value, name)


def _content(value: Any, name: str) -> str:
    """Return the text of a message's content: a string, or OpenAI's array of text parts."""
    if isinstance(value, str):
        return value
    parts: Sequence[Any] = value if isinstance(value, list) else [None]
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
        for part in parts
    ]
    if not all(isinstance(text, str) for text in texts):
        refuse(f"{name} must be a string or an array of text parts", name)
    return "".join(str(text) for text in texts)
