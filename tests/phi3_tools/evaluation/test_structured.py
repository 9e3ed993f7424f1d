"""Scores of structured answers, held to an independent reference on random objects.

The reference compares both values side by side, tries every order of calls, and validates with
jsonschema. The scores validate with jsonschema-rs.
"""

from __future__ import annotations

import itertools
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi3_tools import ConfigError
from phi3_tools.evaluation.structured import (
    MAX_DEPTH,
    NOT_JSON,
    field_exact,
    field_f1,
    parse_answer,
    schema_match,
    structured_scores,
    tool_call_match,
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, 1.5, 1e308, 2**60]),
    st.sampled_from(["", "a", "A", "1", "true", "é", "e\u0301"]),
)
KEYS = st.sampled_from(["a", "b", "c", "0"])
VALUES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(st.lists(parts, max_size=3), st.dictionaries(KEYS, parts, max_size=3)),
    max_leaves=8,
)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
SCHEMAS = st.recursive(
    st.one_of(
        st.builds(lambda name: {"type": name}, TYPES),
        st.builds(lambda values: {"enum": values}, st.lists(LEAVES, min_size=1, max_size=3)),
        st.builds(lambda value: {"const": value}, LEAVES),
        st.builds(lambda low: {"minimum": low}, st.integers(-2, 2)),
    ),
    lambda parts: st.one_of(
        st.builds(
            lambda fields, required, more: {
                "type": "object",
                "properties": fields,
                "required": required,
                "additionalProperties": more,
            },
            st.dictionaries(KEYS, parts, max_size=3),
            st.lists(KEYS, max_size=2, unique=True),
            st.booleans(),
        ),
        st.builds(lambda part: {"type": "array", "items": part, "maxItems": 2}, parts),
        st.builds(lambda some: {"anyOf": some}, st.lists(parts, min_size=1, max_size=2)),
    ),
    max_leaves=5,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["f", "g"]),
            "arguments": st.dictionaries(KEYS, LEAVES, max_size=2),
        }
    ),
    max_size=4,
)


# -- the reference -----------------------------------------------------------------------------------


def are_equal(one, other):
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return sorted(one) == sorted(other) and all(are_equal(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return one == other
    return type(one) is type(other) and one == other


def leaf_list(value, path=""):
    """Return the fields as a list of texts and values."""
    parts = None
    if isinstance(value, dict):
        parts = [(f"{path}.{key}", value[key]) for key in value]
    elif isinstance(value, list):
        parts = [(f"{path}[{number}]", part) for number, part in enumerate(value)]
    return (
        [leaf for name, part in parts for leaf in leaf_list(part, name)]
        if parts
        else [(path, value)]
    )


def reference_f1(value, truth):
    got, wanted = leaf_list(value), leaf_list(truth)
    right = 0
    for path, leaf in got:
        right += any(path == other and are_equal(leaf, expected) for other, expected in wanted)
    if not right:
        return 0.0
    precision, recall = right / len(got), right / len(wanted)
    return 2 * precision * recall / (precision + recall)


def reference_match(calls, expected):
    return any(are_equal(list(order), expected) for order in itertools.permutations(calls))


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_fields_are_those_of_the_reference(value, truth):
    assert field_exact(value, truth) == are_equal(value, truth)
    assert field_f1(value, truth) == pytest.approx(reference_f1(value, truth))
    assert field_exact(truth, truth) == field_f1(truth, truth) == 1.0


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, VALUES)
def test_schemas_are_checked_as_by_another_validator(schema, value):
    validator = jsonschema.Draft202012Validator(schema)
    assert schema_match(value, schema) == validator.is_valid(value)
    assert schema_match(value, json.dumps(schema)) == validator.is_valid(value)


@settings(max_examples=150, deadline=None)
@given(CALLS, CALLS, st.randoms(use_true_random=False))
def test_calls_match_in_any_order(calls, expected, random):
    assert tool_call_match(calls, expected) == reference_match(calls, expected)
    shuffled = random.sample(expected, len(expected))
    as_openai = [
        {"id": str(n), "function": {"name": c["name"], "arguments": json.dumps(c["arguments"])}}
        for n, c in enumerate(shuffled)
    ]
    assert tool_call_match(as_openai, expected) == 1.0
    assert tool_call_match(json.dumps(as_openai), json.dumps(expected)) == 1.0


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_a_text_has_the_scores_of_its_value(value):
    text = json.dumps(value, ensure_ascii=False)
    scores = structured_scores(f" {text}\n", text, {})
    assert scores == dict.fromkeys(scores, 1.0)


# -- cases -------------------------------------------------------------------------------------------


DEEP = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
NOT_JSON_TEXTS = {
    "empty": "",
    "half": "{",
    "nan": "NaN",
    "infinity": '{"a": Infinity}',
    "python": "{'a': 1}",
    "fenced": '```json\n{"a": 1}\n```',
    "text after": '{"a": 1} Done.',
    "digits": "9" * 5000,
    "brackets": "[" * 100_000,
    "deep": DEEP,
}


@pytest.mark.parametrize("text", NOT_JSON_TEXTS.values(), ids=NOT_JSON_TEXTS)
def test_an_answer_that_is_not_json_scores_0(text):
    assert parse_answer(text) is NOT_JSON
    scores = structured_scores(text, {"a": 1}, {"type": "object"})
    assert scores == dict.fromkeys(("valid_json", "schema_match", "field_exact", "field_f1"), 0.0)


def test_partial_answers_have_partial_fields():
    truth = {"name": "Ann", "items": [{"n": 1}, {"n": 2}], "note": None}
    scores = structured_scores('{"name": "Ann", "items": [{"n": 1}], "extra": true}', truth)
    assert (scores["valid_json"], scores["schema_match"], scores["field_exact"]) == (1.0, 1.0, 0.0)
    assert scores["field_f1"] == pytest.approx(2 * 2 / (3 + 4))


def test_turns_have_an_order_and_calls_within_a_turn_have_none():
    a, b, c = ({"name": name, "arguments": {}} for name in "abc")
    assert tool_call_match([[a, b], [c]], [[b, a], [c]]) == 1.0
    assert tool_call_match([[c], [a, b]], [[a, b], [c]]) == 0.0
    assert tool_call_match([a, b, c], [[a, b], [c]]) == 0.0
    assert tool_call_match([], []) == tool_call_match(None, [[]]) == tool_call_match("", []) == 1.0


@pytest.mark.parametrize(
    "calls", ["oops", [1], [{"name": "a", "arguments": "["}], [{"arguments": {}}], {"name": 1}]
)
def test_calls_that_are_malformed_do_not_match(calls):
    assert tool_call_match(calls, [{"name": "a"}]) == 0.0
    assert tool_call_match([{"name": "a", "arguments": ""}], [{"name": "a"}]) == 1.0


def test_a_bad_expected_call_is_an_error():
    with pytest.raises(ConfigError, match="an expected call has no name"):
        tool_call_match([], [{"arguments": {}}])


def test_a_reference_that_is_not_json_is_an_error():
    with pytest.raises(ConfigError, match="ground_truth is not JSON"):
        structured_scores("{}", "Paris")


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "objekt"}, "schema is not a valid JSON schema"),
        ("{", "schema is a text, but must be a JSON schema"),
        ({"$ref": "https://example.com/other.json"}, "is another document, which is not loaded"),
    ],
)
def test_a_bad_schema_is_an_error(schema, problem):
    for value in ({}, NOT_JSON):
        with pytest.raises(ConfigError, match=problem):
            schema_match(value, schema)


def test_a_schema_that_refers_to_itself_accepts_recursive_values():
    schema = {"type": "object", "additionalProperties": {"$ref": "#"}}
    assert schema_match({"a": {"b": {}}}, schema) == 1.0
    assert schema_match({"a": {"b": 1}}, schema) == 0.0
