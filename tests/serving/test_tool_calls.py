"""Tool calls are found in an answer's text, however it is cut into pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_calls import ToolCallReader
from tool_format import GENERIC, PHI4_MINI, write_calls

CALLS = [
    {"function": {"name": "weather", "arguments": {"city": 'Ro"me\\', "days": [1, {"a": "}"}]}}},
    {"function": {"name": "clock", "arguments": {}}},
]


def read(pieces, tool_format, **settings):
    reader = ToolCallReader(tool_format, **settings)
    deltas = [delta for piece in pieces for delta in reader.add(piece)]
    return reader, [*deltas, *reader.flush()]


def cut(text, positions):
    edges = sorted({0, len(text), *(position % (len(text) + 1) for position in positions)})
    return [text[start:end] for start, end in zip(edges, edges[1:])]


def put_together(deltas):
    """The text and the calls of a stream's deltas, as a client reads them."""
    text, calls = "", []
    for delta in deltas:
        text += delta.get("content", "")
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["index"] == len(calls)
                calls.append({"id": part["id"], "name": part["function"]["name"], "arguments": ""})
            calls[part["index"]]["arguments"] += part["function"]["arguments"]
    return text, calls


@pytest.mark.parametrize("tool_format", [PHI4_MINI, GENERIC])
@given(
    st.lists(st.integers(0, 500), max_size=40), st.sampled_from(["", "Let me look.", "a <b>\n\nc"])
)
def test_text_and_calls_are_the_same_however_the_answer_is_cut(tool_format, positions, text):
    answer = f"{text}\n" * bool(text) + write_calls(CALLS, tool_format)
    reader, deltas = read(cut(answer, positions), tool_format)
    streamed_text, calls = put_together(deltas)
    assert (streamed_text, reader.text) == (text, text)
    assert [call["name"] for call in calls] == ["weather", "clock"]
    expected = [call["function"]["arguments"] for call in CALLS]
    assert [json.loads(call["arguments"]) for call in calls] == expected
    assert [call.body["function"] for call in reader.calls] == [
        {"name": call["name"], "arguments": call["arguments"]} for call in calls
    ]
    assert len({call["id"] for call in calls}) == 2


@given(st.lists(st.integers(0, 100), max_size=20))
def test_an_answer_without_calls_is_text(positions):
    answer = "1 < 2, and <tool_ is the start of a mark.\n\n<tool"
    reader, deltas = read(cut(answer, positions), GENERIC)
    assert put_together(deltas) == (answer, [])
    assert (reader.text, reader.calls) == (answer, [])


def test_an_answer_in_json_may_contain_a_mark():
    answer = '{"a": "<tool_call>{\\"name\\": \\"clock\\", \\"arguments\\": {}}"}'
    reader, _ = read(list(answer), GENERIC, has_free_text=False)
    assert (reader.text, reader.calls) == (answer, [])
    reader, _ = read(list(write_calls(CALLS, GENERIC)), GENERIC, has_free_text=False)
    assert (reader.text, len(reader.calls)) == ("", 2)


def test_a_call_that_was_cut_off_has_incomplete_arguments():
    answer = write_calls(CALLS, GENERIC)[:60]
    reader, _ = read([answer], GENERIC)
    assert [call.name for call in reader.calls] == ["weather"]
    assert write_calls(CALLS, GENERIC).find(reader.calls[0].arguments) > 0
