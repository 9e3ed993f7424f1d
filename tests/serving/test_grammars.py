"""The text of the grammars; tests/serving/test_constraints.py tests what they accept."""

import json

import pytest
from answer_formats import read_answer_format
from grammars import JSON_OPTIONS, schema_grammar, write_grammar
from tool_format import GENERIC, PHI4_MINI

TOOLS = [{"type": "function", "function": {"name": "clock"}}]
REQUEST = {"response_format": {"type": "text"}, "tools": TOOLS, "parallel_tool_calls": True}


def rules(tool_format, mark_tokens=None, **settings):
    answer_format = read_answer_format({**REQUEST, "tool_choice": "auto", **settings})
    grammars = json.loads(write_grammar(answer_format, tool_format, mark_tokens or {}))["grammars"]
    assert [grammar["name"] for grammar in grammars][0] == "calls"
    return grammars[0]["lark_grammar"].splitlines()


def test_a_schema_alone_needs_no_rules():
    json_object = {"response_format": {"type": "json_object"}, "tools": (), "tool_choice": None}
    answer_format = read_answer_format({**REQUEST, **json_object})
    grammar = json.loads(write_grammar(answer_format, GENERIC, {}))
    assert grammar == json.loads(schema_grammar({"type": "object"}))
    assert grammar["grammars"][0]["json_schema"]["x-guidance"] == JSON_OPTIONS


@pytest.mark.parametrize("tool_format", [GENERIC, PHI4_MINI])
def test_text_ends_at_the_mark_of_a_call(tool_format):
    text_rules = rules(tool_format)
    assert any(rule.startswith("head[lazy]: TEXT ") for rule in text_rules)
    marks = {"<|tool_call|>": 7, "<|/tool_call|>": 8}
    if tool_format == PHI4_MINI:
        assert "head: TEXT <[7]>" in rules(tool_format, marks)
        assert any(rule.endswith("<[8]> ") for rule in rules(tool_format, marks))


@pytest.mark.parametrize("tool_format", [GENERIC, PHI4_MINI])
def test_the_number_of_calls_is_limited(tool_format):
    assert "{0,31}" in rules(tool_format)[1]
    assert "{0,31}" not in rules(tool_format, parallel_tool_calls=False)[1]
