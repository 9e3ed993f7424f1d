"""Schemas that the endpoint refuses before it compiles them: in bounded time, with the place."""

import pytest
from hypothesis import given, settings
from parameters import ScoringError
from schema_checks import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_OPTIONAL,
    MAX_PROPERTIES,
    MAX_VALUES,
    NOT_SUPPORTED,
    check_nesting,
    check_schema,
)

from random_schemas import schemas as any_schema

TEXT = {"type": "string"}


def inside(schema):
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def nested(levels):
    schema = TEXT
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def refusal(schema):
    with pytest.raises(ScoringError) as caught:
        check_schema(schema, "schema")
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("keyword", sorted(NOT_SUPPORTED))
def test_a_keyword_that_cannot_be_honoured_is_named(keyword):
    error = refusal(inside({"anyOf": [TEXT, {keyword: True}]}))
    assert error.param == f"schema.properties.a.anyOf[1].{keyword}"
    assert f"the keyword {keyword}, which is not supported" in error.message


def test_a_property_may_have_the_name_of_a_keyword():
    names = {name: {"const": {name: 1}} for name in NOT_SUPPORTED}
    check_schema({"properties": names, "$defs": names, "x-mine": names, "enum": [names]}, "schema")


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        (3, "must be a JSON schema (an object), not 3"),
        (None, "must be a JSON schema (an object), not null"),
        (nested(10_000), f"nested more than {MAX_DEPTH} levels"),
        ({"enum": [f"v{i}" for i in range(100_000)]}, f"more than {MAX_VALUES} values"),
        ({"properties": {f"p{i}": {} for i in range(1001)}}, f"up to {MAX_PROPERTIES}"),
        (
            {"anyOf": [{"properties": {f"{c}{i}": {} for i in range(201)}} for c in "ab"]},
            f"402 properties that are not required; it may have up to {MAX_OPTIONAL}",
        ),
        ({"const": "x" * 300_000}, f"up to {MAX_BYTES}"),
        (inside({"format": "iri"}), "must be one of date-time, "),
        (inside({"format": ["date"]}), "must be one of date-time, "),
        ({"minProperties": 2, "required": ["a"]}, "number of required properties"),
        ({"anyOf": [{"pattern": f"^a{i}"} for i in range(65)]}, "uses pattern, patternProp"),
        ({"anyOf": [{"pattern": f"^a{i}"} for i in range(65)]}, "may have up to 64"),
        ({"patternProperties": {f"^a{i}": TEXT for i in range(65)}}, "may have up to 64"),
        ({"allOf": [{"pattern": f".*{c}.*"} for c in "abcdefghi"]}, "may have up to 8, because"),
    ],
)
def test_what_is_too_large_or_unclear_is_refused(schema, part):
    assert part in refusal(schema).message


@pytest.mark.parametrize("keyword", ["$ref", "anyOf"])
def test_patterns_of_a_chain_are_limited_too(keyword):
    """Each link of the chain adds a pattern that the value must match as well."""
    schema = TEXT
    for letter in "abcdefghi":
        link = [schema] if keyword == "anyOf" else "#/$defs/a"
        schema = {keyword: link, "pattern": f".*{letter}.*", "$defs": {"a": schema}}
    assert "may have up to 8, because" in refusal(schema).message


def test_descriptions_beside_a_reference_are_no_intersection():
    patterns = {f"p{i}": {"pattern": f"^{i}", "title": "a"} for i in range(20)}
    references = {"b": {"$ref": "#/properties/p1", "description": "c", "default": "1"}}
    check_schema({"properties": {**patterns, **references}}, "schema")


@settings(max_examples=30, deadline=None)
@given(any_schema)
def test_ordinary_schemas_are_accepted(schema):
    check_schema(inside(schema), "schema")


def test_arguments_are_nested_to_a_limit():
    check_nesting({"a": [{"not": 1}]}, "arguments")
    with pytest.raises(ScoringError, match="nested more than"):
        check_nesting(nested(200), "arguments")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 999_983},
        {"type": "number", "multipleOf": 99.9983},
        {"type": "number", "multipleOf": 1e300},
        {"type": "integer", "multipleOf": 10**400},
        {"type": "number", "multipleOf": 1e-300},
        {"type": "integer", "multipleOf": -999_983},
        {"anyOf": [{"multipleOf": 1}, {"multipleOf": 2**-12}]},
        {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]},
        {"allOf": [{"multipleOf": 99.73}, {"multipleOf": 1000}]},
        {"$ref": "#/default", "default": {"type": "integer", "multipleOf": 999_983}},
    ],
)
def test_large_multiples_are_refused(schema):
    assert "multipleOf is too large or has too many" in str(refusal(inside(schema)))


@pytest.mark.parametrize(
    "multiples", [(0.01, 1000, 60), (9973,), (0.25, 5), (0, True, "7", float("nan"))]
)
def test_usual_multiples_pass(multiples):
    check_schema({"anyOf": [{"multipleOf": multiple} for multiple in multiples]}, "schema")
