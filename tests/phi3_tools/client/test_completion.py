"""The form of a chat completion that promptflow reads tokens from."""

from __future__ import annotations

import json

from phi3_tools import Reply, ToolCall, Usage
from phi3_tools.client.completion import ChatCompletion


def test_a_reply_as_a_chat_completion():
    completion = ChatCompletion(Reply("Bill", Usage(5, 2), "stop", "tiny"))
    tokens = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert json.loads(json.dumps(completion)) == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Bill"},
                "finish_reason": "stop",
            }
        ],
        "usage": tokens,
    }
    assert completion.usage.dict() == tokens


def test_a_reply_without_usage():
    completion = ChatCompletion(Reply("Bill"))
    assert completion.usage is None
    assert "usage" not in completion
    assert completion["model"] == "phi-3"


def test_a_reply_with_tool_calls():
    call = ToolCall("c", "weather", "{}")
    completion = ChatCompletion(Reply("", finish_reason="tool_calls", tool_calls=(call,)))
    assert completion["choices"][0]["message"]["tool_calls"] == [call.as_dict()]
