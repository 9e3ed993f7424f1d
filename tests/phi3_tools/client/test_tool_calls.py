"""Tools and their calls: definitions, messages, answers, streams, and plain text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools import BadAnswerError, ConfigError, Params, ToolCall
from phi3_tools.client.messages import check_messages
from phi3_tools.client.schemas import ProblemsError
from phi3_tools.client.tool_calls import (
    MAX_CALLS,
    CallCollector,
    call_text,
    decode_calls,
    read_tools,
    result_text,
    split_calls,
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = ToolCall("call_a", "weather", '{"city": "Vienna"}')
USER = {"role": "user", "content": "Weather in Vienna?"}
ASKS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_a", "content": "sunny"}


def tool(**fields):
    return {"type": "function", "function": fields}


# -- definitions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("weather", "tools is a text, but must be a list"),
        ([{}], r"tools\[0\] must have the form"),
        ([{"type": "function"}], r"tools\[0\] must have the form"),
        ([{"type": "retrieval", "function": {"name": "x"}}], r"tools\[0\] must have the form"),
        ([WEATHER, tool(description="x")], r"tools\[1\]\.function\.name is missing"),
        ([tool(name="two words")], r"tools\[0\]\.function\.name is 'two words'"),
        ([tool(name="x" * 65)], r"tools\[0\]\.function\.name is"),
        ([WEATHER, WEATHER], r"tools\[1\]\.function\.name is 'weather', which another tool"),
        ([tool(name="x", parameters=[])], r"tools\[0\]\.function\.parameters is a list"),
        (
            [tool(name="x", parameters={"type": "objekt"})],
            r"tools\[0\]\.function\.parameters is not a valid JSON schema",
        ),
        ([tool(name=f"t{n}") for n in range(200)], "tools has 200 items"),
    ],
)
def test_a_wrong_tool_is_refused_with_its_field(tools, message):
    with pytest.raises(ConfigError, match=message):
        Params(tools=tools)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("sometimes", "tool_choice is 'sometimes'"),
        ({"type": "function"}, "tool_choice is"),
        ({"type": "function", "function": {"name": "news"}}, "'news', which is not one of weather"),
    ],
)
def test_a_wrong_choice_is_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        Params(tools=[WEATHER], tool_choice=choice)


def test_a_choice_needs_tools():
    with pytest.raises(ConfigError, match="there are no tools"):
        Params(tool_choice="required")


def test_a_tool_may_have_no_parameters():
    assert read_tools([tool(name="now")])["now"]["parameters"]["type"] == "object"


# -- messages --------------------------------------------------------------------------------------


def test_calls_and_results_are_messages():
    checked = check_messages([USER, ASKS, RESULT])
    assert checked[1] == {"role": "assistant", "content": "", "tool_calls": [CALL.as_dict()]}
    assert checked[2] == RESULT


def test_arguments_may_be_an_object():
    call = {"id": "a", "function": {"name": "weather", "arguments": {"city": "ü"}}}
    (_, message, _) = check_messages(
        [USER, {**ASKS, "tool_calls": [call]}, {**RESULT, "tool_call_id": "a"}]
    )
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "ü"}'


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([USER, ASKS], "the tool call 'call_a' has no result"),
        ([USER, ASKS, USER], "the tool call 'call_a' has no result"),
        ([USER, RESULT], r"message 2 \(tool\): tool_call_id 'call_a' is not a call"),
        ([USER, ASKS, RESULT, RESULT], r"message 4 \(tool\): tool_call_id 'call_a' is not a call"),
        (
            [USER, ASKS, {"role": "tool", "content": "x"}],
            r"message 3 \(tool\): tool_call_id is mis",
        ),
        ([USER, ASKS, {**RESULT, "content": {}}], r"message 3 \(tool\): content is dict"),
        ([USER, {**ASKS, "tool_calls": "x"}], r"message 2 \(assistant\): tool_calls is a text"),
        ([USER, {**ASKS, "tool_calls": [{}]}], r"tool_calls\[0\] must have an `id`"),
        (
            [USER, {**ASKS, "tool_calls": [{"id": "a", "function": {}}]}],
            r"tool_calls\[0\]\.function\.name is missing",
        ),
        (
            [
                USER,
                {**ASKS, "tool_calls": [{"id": "a", "function": {"name": "x", "arguments": 1}}]},
            ],
            r"tool_calls\[0\]\.function\.arguments is of type int",
        ),
    ],
)
def test_wrong_calls_are_refused_with_their_field(messages, message):
    with pytest.raises(ConfigError, match=message):
        check_messages(messages)


# -- answers ---------------------------------------------------------------------------------------


def test_calls_of_an_answer_are_decoded():
    message = {"content": None, "tool_calls": [CALL.as_dict(), {"type": "other"}, "x"]}
    assert decode_calls(message) == (CALL,)
    assert CALL.arguments == {"city": "Vienna"}


@pytest.mark.parametrize("arguments", ["[1]", "{", "nothing"])
def test_arguments_that_are_no_object_are_an_error_of_the_answer(arguments):
    with pytest.raises(BadAnswerError, match="the arguments of weather: "):
        ToolCall("a", "weather", arguments).arguments  # noqa: B018


def test_some_servers_send_arguments_as_an_object_and_no_id():
    (call,) = decode_calls({"tool_calls": [{"function": {"name": "x", "arguments": {"a": 1}}}]})
    assert call == ToolCall("call_0", "x", '{"a": 1}')


def pieces_of(calls, cuts):
    """Return the deltas of a stream that sends the calls one after the other, cut into pieces."""
    for index, call in enumerate(calls):
        function = {"name": call.name, "arguments": ""}
        yield [{"index": index, "id": call.id, "type": "function", "function": function}]
        text = call.arguments_json
        while text:
            size = next(cuts)
            yield [{"index": index, "function": {"arguments": text[:size]}}]
            text = text[size:]


@given(
    st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_streamed_pieces_are_put_together(items, sizes):
    import itertools

    calls = [
        ToolCall(f"id{n}", name, json.dumps({"a": text})) for n, (name, text) in enumerate(items)
    ]
    collector = CallCollector()
    for deltas in pieces_of(calls, itertools.cycle(sizes)):
        collector.add(deltas)
    assert collector.calls() == tuple(calls)


def test_pieces_without_an_index_belong_to_the_last_call():
    collector = CallCollector()
    collector.add([{"id": "a", "function": {"name": "x", "arguments": '{"k":'}}])
    collector.add([{"function": {"arguments": " 1}"}}])
    collector.add([{"id": "b", "function": {"name": "y", "arguments": "{}"}}])
    assert [c.arguments for c in collector.calls()] == [{"k": 1}, {}]


def test_half_a_character_is_joined_with_the_other_half():
    collector = CallCollector()
    collector.add([{"index": 0, "id": "a", "function": {"name": "x", "arguments": '{"k":"\ud83d'}}])
    collector.add([{"index": 0, "function": {"arguments": '\ude42"}'}}])
    assert collector.calls()[0].arguments == {"k": "🙂"}


def test_too_many_calls_are_refused():
    collector = CallCollector()
    with pytest.raises(BadAnswerError, match="more than 128 tool calls"):
        for index in range(200):
            collector.add([{"index": index * 10**9, "function": {"name": "x"}}])


@pytest.mark.parametrize("deltas", [None, 5, "x", [None], [{"function": 1}], {"a": 1}])
def test_deltas_of_another_form_are_ignored(deltas):
    collector = CallCollector()
    collector.add(deltas)
    assert collector.calls() == ()


# -- plain text ------------------------------------------------------------------------------------


@given(NAMES, st.dictionaries(st.text(max_size=5), TEXTS, max_size=3))
def test_a_call_as_text_is_read_again(name, arguments):
    arguments = {key: text.replace("<", "") for key, text in arguments.items()}
    call = ToolCall("call_0", name, json.dumps(arguments))
    text, calls = split_calls(f"Let me see. {call_text(call.as_dict())}")
    assert text == "Let me see."
    assert [(c.name, c.arguments) for c in calls] == [(name, arguments)]


def test_a_call_may_lack_its_end():
    assert split_calls('<tool_call>{"name": "now", "arguments": {}}')[1][0].name == "now"


@pytest.mark.parametrize("text", ["<tool_call>", "<tool_call>[]</tool_call>", "<tool_call>{}"])
def test_a_wrong_call_in_a_text_is_reported(text):
    with pytest.raises(ProblemsError, match="the call 1 "):
        split_calls(text if text != "<tool_call>" else "<tool_call>now()")


def test_too_many_calls_in_a_text_are_reported():
    call = call_text(CALL.as_dict())
    assert len(split_calls(call * MAX_CALLS)[1]) == MAX_CALLS
    with pytest.raises(ProblemsError, match="it has more than 128 tool calls"):
        split_calls(call * (MAX_CALLS + 1))


def test_an_argument_may_contain_marks():
    arguments = {"city": "a</tool_call>b<tool_call>c"}
    call = call_text(ToolCall("c", "weather", json.dumps(arguments)).as_dict())
    text, calls = split_calls(f"One. {call} Two. <tool_call>\n{call.removeprefix('<tool_call>')}")
    assert text == "One.  Two."
    assert [c.arguments for c in calls] == [arguments, arguments]


def test_a_call_without_its_end_ends_before_the_next():
    call = '<tool_call>{"name": "now"}\n'
    assert [c.id for c in split_calls(call * 2)[1]] == ["call_0", "call_1"]
    with pytest.raises(ProblemsError, match="the call 2 is not JSON"):
        split_calls(f"{call}<tool_call>{{")


def test_a_text_without_calls_stays_as_it_is():
    assert split_calls("  plain \n") == ("  plain \n", ())


def test_a_result_cannot_end_its_own_block():
    text = result_text("x</tool_response><tool_response>")
    assert text.count("</tool_response>") == text.count("<tool_response>") == 1
