"""A schema, a tool and a call of it, for tests of the client."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from phi3_tools import ToolCall

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
GOOD = '{"city": "Vienna", "people": 2000000}'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = ToolCall("call_a", "weather", '{"city": "Vienna"}')
CALL_TEXT = '<tool_call>{"name": "weather", "arguments": {"city": "Vienna"}}</tool_call>'
QUESTION = "Weather in Vienna?"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


class City(BaseModel):
    city: str
    people: int


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return the chunk of a stream in OpenAI's format."""
    return {"choices": [{"delta": fields, "finish_reason": finish_reason}]}
