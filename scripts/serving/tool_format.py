"""Writes tools, tool calls and their results into plain messages, in the model's own format.

A conversation comes as in OpenAI's API: `tools`, an assistant's `tool_calls`, and messages with the role
`tool`. The chat templates of Phi-3, Phi-3.5, Phi-4-mini and SmolLM2 render a role and a content only
(Phi-4-mini's also the tools of a system message), so `plain_messages` writes the rest into the contents.

- `PHI4_MINI`: the system message has the functions as a JSON list, which the template puts between
  `<|tool|>` and `<|/tool|>`. Calls are a JSON list between `<|tool_call|>` and `<|/tool_call|>`. A result
  is a message with the role `tool`. Source: card and `chat_template` of microsoft/Phi-4-mini-instruct.
- `GENERIC`: the system message has instructions, and the functions as a JSON list between `<tools>` and
  `</tools>`. Each call is JSON between `<tool_call>` and `</tool_call>`. Results are a user's message,
  each between `<tool_response>` and `</tool_response>`. Source: "Hermes Function Calling", NousResearch.

scripts/serving and scripts/training have equal copies of this file: each folder is uploaded alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

PHI4_MINI, GENERIC = "phi-4-mini", "generic"
CALL_MARKS = {
    PHI4_MINI: ("<|tool_call|>", "<|/tool_call|>"),
    GENERIC: ("<tool_call>", "</tool_call>"),
}
RESULT_MARKS = ("<tool_response>", "</tool_response>")
_MARK_IN_RESULT = re.compile(r"<(?=/?tool_response>)")
PHI4_MINI_SYSTEM = "You are a helpful assistant with some tools."
GENERIC_INSTRUCTIONS = """\
You can call tools. These tools are available:
<tools>
{tools}
</tools>
To call a tool, write one line for each call:
<tool_call>{{"name": "name of the tool", "arguments": {{"name of an argument": "value"}}}}</tool_call>"""


def template_format(template: str) -> str:
    """Return the format of tools for a chat template: `PHI4_MINI` or `GENERIC`.

    Args:
        template: source of the template, in Jinja.
    """
    return PHI4_MINI if "<|tool|>" in template and "message['tools']" in template else GENERIC


def plain_messages(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    tool_format: str,
) -> list[dict[str, str]]:
    """Return messages with a role and a content, which a chat template can render.

    Args:
        messages: messages; `arguments` of a call are an object, or its JSON.
        tools: tools of the conversation, or None.
        tool_format: result of `template_format`.

    Returns:
        The messages. In the format `PHI4_MINI` the system message also has `tools`, a text.
    """
    plain: list[dict[str, str]] = []
    after_result = False
    for message in messages:
        role, content = str(message["role"]), message.get("content") or ""
        if calls := message.get("tool_calls"):
            written = write_calls(calls, tool_format)
            content = f"{content}\n{written}" if content else written
        if role == "tool" and tool_format == GENERIC:
            # A mark inside a result is broken up: the result cannot end itself.
            content = _MARK_IN_RESULT.sub("< ", content).join(RESULT_MARKS)
            if after_result:
                plain[-1]["content"] += f"\n{content}"
                continue
            role = "user"
        plain.append({"role": role, "content": content})
        after_result = message["role"] == "tool"
    return _add_tools(plain, tools, tool_format) if tools else plain


def write_calls(calls: Sequence[Mapping[str, Any]], tool_format: str) -> str:
    """Return an assistant's tool calls as the model writes them."""
    values = [
        {"name": call["function"]["name"], "arguments": _arguments(call["function"])}
        for call in calls
    ]
    marks = CALL_MARKS[tool_format]
    if tool_format == PHI4_MINI:
        return _to_json(values).join(marks)
    return "\n".join(_to_json(value).join(marks) for value in values)


def _arguments(function: Mapping[str, Any]) -> Any:
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:  # a model wrote it
        return arguments


def _add_tools(
    messages: list[dict[str, str]], tools: Sequence[Mapping[str, Any]], tool_format: str
) -> list[dict[str, str]]:
    """Return the messages with the tools in the system message, which is added if it is missing."""
    has_system = bool(messages) and messages[0]["role"] == "system"
    system = messages[0]["content"] if has_system else ""
    rest = messages[1:] if has_system else messages
    functions = _to_json([tool["function"] for tool in tools])
    if tool_format == PHI4_MINI:
        content = system if has_system else PHI4_MINI_SYSTEM
        return [{"role": "system", "content": content, "tools": functions}, *rest]
    instructions = GENERIC_INSTRUCTIONS.format(tools=functions)
    content = f"{system}\n\n{instructions}" if system else instructions
    return [{"role": "system", "content": content}, *rest]


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
