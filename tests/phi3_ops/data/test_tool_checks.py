"""Rows with tools and with schemas: which pass, and which field the reason names otherwise."""

from __future__ import annotations

import copy
import json

import pytest

from call_arguments import CALL_ARGUMENTS
from phi3_ops import paths
from phi3_ops.data.checks import ROLES, Chat, chat_digest, check_chat, estimate_tokens, shorten_chat
from phi3_ops.data.prepare import prepare_data
from phi3_ops.data.tool_checks import CALLS, RESULTS, SCHEMA, TOOLS, answer_schema
from phi3_ops.errors import OpsError

SAMPLES = paths.PACKAGE / "samples" / "structured"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def call(number, city="Wien"):
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"id": f"c{number}", "type": "function", "function": function}


def tool_row():
    return {
        "messages": [
            {"role": "user", "content": "Wien or Oslo?"},
            {"role": "assistant", "content": None, "tool_calls": [call(1), call(2, "Oslo")]},
            {"role": "tool", "tool_call_id": "c2", "content": "9"},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            {"role": "assistant", "content": "Wien."},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": CITY}}],
    }


def schema_row(answer='{"city": "Wien"}', schema=CITY):
    chat = {"role": "user", "content": "I live in Wien."}, {"role": "assistant", "content": answer}
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    return {"messages": list(chat), "response_format": response_format}


def format_row(response_format, answer="{}"):
    return {**schema_row(answer), "response_format": response_format}


def changed(path, value):
    """Return the row with another value at a path of keys and indices."""
    row = copy.deepcopy(tool_row())
    part = row
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return row


def without_messages(*numbers):
    row = tool_row()
    row["messages"] = [m for number, m in enumerate(row["messages"]) if number not in numbers]
    return row


def test_a_row_with_tools_passes():
    chat = check_chat(tool_row())
    assert isinstance(chat, Chat) and chat.with_tools
    assert (chat.turns, chat.prompt) == (1, "Wien or Oslo?")
    assert json.loads(chat.answer)[1] == call(2, "Oslo")["function"]
    assert '"weather"' in chat.text and "Oslo" in chat.text
    assert isinstance(check_chat(schema_row()), Chat)


def test_tools_may_be_a_text_as_tables_have_them():
    row = tool_row()
    row["tools"] = json.dumps(row["tools"])
    assert isinstance(check_chat(row), Chat)


FUNCTION = ("messages", 1, "tool_calls", 0, "function")
PROBLEMS = {
    "tools": (changed(["tools"], {"a": 1}), TOOLS, "tools is not a list"),
    "tools text": (changed(["tools"], "["), TOOLS, "tools is a text that is not JSON"),
    "function": (changed(["tools", 0], {}), TOOLS, "tools[0].function is missing"),
    "name": (
        changed(["tools", 0, "function", "name"], ""),
        TOOLS,
        "tools[0].function.name is missing",
    ),
    "parameters": (
        changed(["tools", 0, "function", "parameters", "type"], "objekt"),
        TOOLS,
        "tools[0].function.parameters is not a valid JSON schema",
    ),
    "calls": (
        changed(["messages", 1, "tool_calls"], "x"),
        CALLS,
        "messages[1].tool_calls is not a list",
    ),
    "call": (
        changed(["messages", 1, "tool_calls", 1], {}),
        CALLS,
        "messages[1].tool_calls[1].function.name is missing",
    ),
    "other tool": (
        changed([*FUNCTION, "name"], "time"),
        CALLS,
        "messages[1].tool_calls[0].function.name is not the name of one of the row's tools",
    ),
    "arguments": (
        changed([*FUNCTION, "arguments"], "[1]"),
        CALLS,
        "messages[1].tool_calls[0].function.arguments is not a JSON object",
    ),
    "argument": (
        changed([*FUNCTION, "arguments"], '{"city": 1}'),
        CALLS,
        "messages[1].tool_calls[0].function.arguments: `city`: 1 is not of type",
    ),
    "no tools": (changed(["tools"], None), CALLS, "is not the name of one of the row's tools"),
    "unanswered": (
        without_messages(3),
        RESULTS,
        "messages[3] comes before the results of all calls",
    ),
    "no result": (
        without_messages(2, 3, 4),
        RESULTS,
        "messages[1].tool_calls: no message has the result",
    ),
    "other id": (
        changed(["messages", 2, "tool_call_id"], "c9"),
        RESULTS,
        "messages[2] (tool) is not the result of a call before it",
    ),
    "twice": (
        changed(["messages", 2, "tool_call_id"], "c1"),
        RESULTS,
        "messages[3] (tool) is not the result of a call before it",
    ),
    "no call": (without_messages(1), ROLES, "message 2 has the role 'tool', not 'assistant'"),
    "text after a call": (
        without_messages(2, 3),
        ROLES,
        "message 3 has the role 'assistant', not 'tool'",
    ),
    "answer": (schema_row("Wien"), SCHEMA, "messages[1].content is not JSON"),
    "field": (schema_row("{}"), SCHEMA, "messages[1].content: "),
    "schema": (schema_row(schema={"type": 1}), SCHEMA, "response_format.json_schema.schema is not"),
    "format": (format_row([1]), SCHEMA, "response_format is not an object"),
    "type": (format_row({"type": ["text"]}), SCHEMA, "response_format.type is not text, json_obj"),
    "json_schema": (
        format_row({"type": "json_schema", "json_schema": "x"}),
        SCHEMA,
        "response_format.json_schema is not an object",
    ),
    "no schema": (
        format_row({"type": "json_schema", "json_schema": {"name": "city"}}),
        SCHEMA,
        "response_format.json_schema.schema is missing",
    ),
    "no JSON": (
        format_row({"type": "json_object"}, "a"),
        SCHEMA,
        "messages[1].content is not JSON",
    ),
    "no object": (format_row({"type": "json_object"}, "1"), SCHEMA, "messages[1].content: "),
}


@pytest.mark.parametrize(("row", "reason", "detail"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_problem_names_the_field(row, reason, detail):
    problem = check_chat(row)
    assert problem.reason == reason
    assert detail in problem.detail and "\n" not in problem.detail


@pytest.mark.parametrize("response_format", [None, {}, {"type": "text"}, {"type": "json_object"}])
def test_a_format_without_a_schema(response_format):
    row = format_row(response_format)
    assert isinstance(check_chat(row), Chat) and answer_schema(row) is None


@pytest.mark.parametrize(("arguments", "is_valid"), CALL_ARGUMENTS)
def test_arguments_are_accepted_as_in_training(arguments, is_valid):
    row = changed([*FUNCTION, "arguments"], arguments)
    del row["tools"][0]["function"]["parameters"]
    assert isinstance(check_chat(row), Chat) == is_valid


def test_many_calls_have_their_results_in_any_order():
    """Every result is looked up in the same time: a row of 20,000 calls took minutes."""
    row = tool_row()
    del row["tools"][0]["function"]["parameters"]
    numbers = range(20_000)
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "9"} for n in numbers]
    row["messages"][1]["tool_calls"] = [call(number) for number in numbers]
    row["messages"][2:4] = [*results[10_000:][::-1], *results[:10_000]]
    assert isinstance(check_chat(row), Chat)
    for message in results[10_000:]:  # without ids, the calls are answered in order
        del message["tool_call_id"]
    row["messages"][2:-1] = results
    assert isinstance(check_chat(row), Chat)
    row["messages"].insert(5, results[0])
    assert check_chat(row).reason == RESULTS


def test_calls_beside_a_text_are_checked_too():
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "tool_calls": [call(1)]},
        ]
    }
    assert check_chat(row).reason == CALLS


def test_rows_that_differ_in_a_call_only_are_no_duplicates():
    other = changed([*FUNCTION, "arguments"], '{"city": "Graz"}')
    digests = {chat_digest(check_chat(row)) for row in (tool_row(), tool_row(), other)}
    assert len(digests) == 2


def test_a_long_chat_is_not_cut_between_a_call_and_its_result():
    row = tool_row()
    row["messages"] += [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Sun. " * 99},
    ]
    chat = check_chat(row)
    shorter = shorten_chat(chat, estimate_tokens(chat) - 1, estimate_tokens)
    assert shorter.messages == tool_row()["messages"] and shorter.with_tools
    assert shorten_chat(chat, 20, estimate_tokens) is None


def test_a_missing_package_is_named(monkeypatch):
    import sys

    from phi3_tools.client import schemas

    schemas._validator.cache_clear()
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(OpsError, match="jsonschema-rs is not installed"):
        check_chat(tool_row())


def test_the_shipped_samples_pass_and_become_questions(tmp_path):
    manifest = prepare_data(SAMPLES / "train.jsonl", tmp_path, seed=1)
    assert (manifest.rows.read, manifest.rows.rejected) == (240, 0)
    questions = [
        json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()
    ]
    with_schema = [question for question in questions if "schema" in question]
    with_tools = [question for question in questions if "tools" in question]
    assert len(with_schema) == len(with_tools) == 120
    assert all(json.loads(question["ground_truth"]) for question in with_schema)
    assert {call["name"] for question in with_tools for call in question["expected_calls"]} == {
        "get_weather", "convert_money", "order_status", "find_restaurant", "book_room", "set_reminder",
    }  # fmt: skip


def test_no_name_or_product_of_the_test_samples_is_in_a_training_row():
    texts = {name: (SAMPLES / f"{name}.jsonl").read_text() for name in ("train", "test")}
    for word in (
        "Greta Hoffmann",
        "Berlin",
        "floor lamp",
        "Juniper Tools",
        "board meeting",
        "Garnet",
    ):
        assert word in texts["test"] and word not in texts["train"]
    prompts = [
        next(m["content"] for m in json.loads(line)["messages"] if m["role"] == "user")
        for text in texts.values()
        for line in text.splitlines()
    ]
    assert len(prompts) == len(set(prompts)) == 320


def test_the_samples_are_those_of_the_script(tmp_path):
    from make_structured_samples import write_samples

    write_samples(tmp_path)
    for file in SAMPLES.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()
