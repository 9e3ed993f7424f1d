"""Messages with tool calls and their results."""

import pytest
from conversations import read_conversation, read_messages
from parameters import ScoringError

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "3"}


def call(**changes):
    return {**ASSISTANT, "tool_calls": [{**CALL, **changes}]}


def test_arguments_become_objects():
    assert read_conversation([USER, ASSISTANT, RESULT]) == [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        RESULT,
    ]


def test_empty_fields_of_other_servers_are_accepted():
    empty = {"role": "assistant", "content": "Hi", "tool_calls": [], "refusal": None, "audio": {}}
    assert read_conversation([empty]) == [{"role": "assistant", "content": "Hi"}]


FUNCTION = "messages[1].tool_calls[0].function"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, RESULT], "messages[1].tool_call_id"),
        ([USER, ASSISTANT, {**RESULT, "tool_call_id": "b"}], "messages[2].tool_call_id"),
        ([USER, ASSISTANT, {**RESULT, "tool_call_id": 3}], "messages[2].tool_call_id"),
        ([USER, ASSISTANT, {**RESULT, "content": None}], "messages[2].content"),
        ([USER, ASSISTANT, {**RESULT, "name": "f"}], "messages[2].name"),
        ([{**USER, "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{**USER, "tool_call_id": "a"}], "messages[0].tool_call_id"),
        ([USER, {**ASSISTANT, "tool_calls": CALL}], "messages[1].tool_calls"),
        ([USER, {**ASSISTANT, "tool_calls": [3]}], "messages[1].tool_calls[0]"),
        ([USER, {"role": "assistant", "content": None}], "messages[1].content"),
        ([USER, call(id=None)], "messages[1].tool_calls[0].id"),
        ([USER, call(type="x")], "messages[1].tool_calls[0]"),
        ([USER, call(function={"arguments": "{}"})], f"{FUNCTION}.name"),
        ([USER, call(function={"name": "f"})], f"{FUNCTION}.arguments"),
        ([USER, call(function={"name": "f", "arguments": {}})], f"{FUNCTION}.arguments"),
        ([USER, call(function={"name": "f", "arguments": "{"})], f"{FUNCTION}.arguments"),
        ([USER, call(function={"name": "f", "arguments": "[]"})], f"{FUNCTION}.arguments"),
        (
            [USER, call(function={"name": "f", "arguments": '{"a":' * 200 + "1" + "}" * 200})],
            f"{FUNCTION}.arguments",
        ),
        (
            [USER, call(function={"name": "f", "arguments": '{"a": "\\ud83d"}'})],
            f"{FUNCTION}.arguments",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(messages, param):
    with pytest.raises(ScoringError) as caught:
        read_conversation(messages)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("message", "field"), [(RESULT, "role"), ({**ASSISTANT, "content": "Hi"}, "tool_calls")]
)
def test_other_contracts_have_no_tools(message, field):
    with pytest.raises(ScoringError) as caught:
        read_messages([message], "input_string")
    assert caught.value.param == f"input_string[0].{field}"
