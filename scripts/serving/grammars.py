"""Writes the grammar of a request's answer, in llguidance's syntax. Pure functions.

Source of the syntax: "Syntax of LLGuidance Grammars" and "JSON schema -> llguidance converter".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from answer_formats import AnswerFormat, Tool
from tool_format import CALL_MARKS, PHI4_MINI

# One space after a comma and a colon, as models write them; without a limit, a model could repeat white
# space for ever. \\u escapes are left out: two of them can be one character, which lengths do not know.
JSON_OPTIONS = {
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrbtf\\"',
}
MAX_CALLS = 32  # of one answer; without a limit, a model could repeat a call for ever
ANY_TEXT = r"TEXT: /(.|\n)*/"


def write_grammar(answer: AnswerFormat, tool_format: str, mark_tokens: Mapping[str, int]) -> str:
    """Return the grammar of an answer that is not free.

    Args:
        answer: the form of the answer.
        tool_format: the model's format of tools, see `tool_format.template_format`.
        mark_tokens: ids of the marks around calls that are control tokens of the model; the others are
            ordinary text.
    """
    schemas = [] if answer.schema is None else [_json_schema("answer", answer.schema)]
    if not answer.tools:
        return json.dumps({"grammars": schemas})
    schemas += [
        _json_schema(f"arguments_{index}", tool.schema) for index, tool in enumerate(answer.tools)
    ]
    rules = "\n".join(_tool_rules(answer, tool_format, mark_tokens))
    return json.dumps({"grammars": [{"name": "calls", "lark_grammar": rules}, *schemas]})


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of one schema alone, which shows whether it can be compiled."""
    return json.dumps({"grammars": [_json_schema("answer", schema)]})


def _json_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "json_schema": {**schema, "x-guidance": JSON_OPTIONS}}


def _tool_rules(
    answer: AnswerFormat, tool_format: str, mark_tokens: Mapping[str, int]
) -> list[str]:
    begin, end = CALL_MARKS[tool_format]
    repeats = f"{{0,{MAX_CALLS - 1}}}"
    if tool_format == PHI4_MINI:  # one list between the marks
        more = f'(", " call){repeats}' if answer.many_calls else ""
        first, rest = f'"[" call {more} "]" {_mark(end, mark_tokens)}', ""
    else:  # each call between the marks, on a line
        first = f"call {_mark(end, mark_tokens)}"
        rest = f'("\\n" {_mark(begin, mark_tokens)} {first}){repeats}' if answer.many_calls else ""
    calls = f"{first} {rest}"
    only_calls = f"{_mark(begin, mark_tokens)} {calls}"
    rules = ["%llguidance {}"]
    if answer.must_call:
        rules.append(f"start: {only_calls}")
    elif answer.schema is not None:
        rules.append(f"start: @answer | {only_calls}")
    else:
        # The mark ends the text as soon as it is there: what follows is a call.
        is_lazy = "" if begin in mark_tokens else "[lazy]"
        head = f"head{is_lazy}: TEXT {_mark(begin, mark_tokens)}"
        rules += [f"start: TEXT | head {calls}", head, ANY_TEXT]
    alternatives = " | ".join(f"call_{index}" for index in range(len(answer.tools)))
    rules.append(f"call: {alternatives}")
    rules += [_call_rule(index, tool) for index, tool in enumerate(answer.tools)]
    return rules


def _call_rule(index: int, tool: Tool) -> str:
    head = json.dumps(f'{{"name": "{tool.name}", "arguments": ')
    return f'call_{index}: {head} @arguments_{index} "}}"'


def _mark(mark: str, mark_tokens: Mapping[str, int]) -> str:
    return f"<[{mark_tokens[mark]}]>" if mark in mark_tokens else json.dumps(mark)
