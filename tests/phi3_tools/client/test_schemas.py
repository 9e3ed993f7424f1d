"""JSON schemas: which ones are accepted, what validation reports, and hostile schemas."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from phi3_tools import ConfigError, Params
from phi3_tools.client.schemas import (
    ProblemsError,
    check_schema,
    find_json,
    read_answer_format,
    validate,
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)


def nested(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def endless():
    schema = {"type": "object", "properties": {}}
    schema["properties"]["again"] = schema
    return schema


# -- schemas ---------------------------------------------------------------------------------------


def test_no_format_and_text_request_nothing():
    assert {read_answer_format(value) for value in (None, "text")} == {None}
    assert read_answer_format({"type": "text"}) is None


def test_a_schema_is_sent_in_openais_form():
    wire = read_answer_format({**PERSON, "title": "A person!"}).wire
    assert wire["type"] == "json_schema"
    assert wire["json_schema"]["name"] == "A_person_" and wire["json_schema"]["strict"] is True
    assert wire["json_schema"]["schema"]["required"] == ["name", "age"]


def test_openais_own_form_is_sent_as_it_is():
    given_form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
    answer_format = read_answer_format(given_form)
    assert answer_format.wire == given_form and answer_format.schema == PERSON


def test_a_class_of_pydantic_makes_the_parsed_value():
    answer_format = read_answer_format(Person)
    assert answer_format.wire["json_schema"]["name"] == "Person"
    assert answer_format.parse('{"name": "Ada", "age": 36}') == Person(name="Ada", age=36)
    with pytest.raises(ProblemsError, match="`age`: Input should be greater than or equal to 0"):
        answer_format.parse('{"name": "Ada", "age": -1}')


def test_a_class_without_a_schema_is_refused():
    class Odd(BaseModel):
        call: type(print)

        model_config = {"arbitrary_types_allowed": True}

    with pytest.raises(ConfigError, match="Odd has no JSON schema"):
        Params(response_format=Odd)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("yaml", "response_format is a text, but must be a JSON schema"),
        (7, "response_format is of type int"),
        ([PERSON], "response_format is a list"),
        ({"type": "json_schema"}, "response_format.json_schema must be an object with a `name`"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": "none"}},
            "response_format.json_schema.schema is a text, but must be a JSON schema",
        ),
        ({"type": "objekt"}, "is not a valid JSON schema: `type`: "),
        ({"properties": {"age": {"type": 5}}}, r"`properties.age.type`: "),
        ({"type": "string", "pattern": "("}, "`pattern`: "),
        ({"type": "string", "pattern": "(?=a)b"}, "`pattern`: "),
        ({"$ref": "http://127.0.0.1:9/schema"}, "another document, which is not loaded"),
        ({"$ref": "#/$defs/none"}, "is not a valid JSON schema: "),
        ({"const": {1, 2}}, "a value of type set is not JSON"),
        ({"const": float("nan")}, "not JSON compliant"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_its_field(value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Params(response_format=value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (nested(10_000), "more than 64 nested levels"),
        (endless(), "more than 64 nested levels"),
        ({"enum": list(range(100_000))}, "more than 20000 values"),
        ({"enum": ["x" * 300_000]}, "characters"),
        ({"type": "string", "pattern": "^(a{1,1000}){1,1000}$"}, "`pattern`: "),
        ({"type": "string", "pattern": "(" * 50_000}, "`pattern`: "),
    ],
    ids=["nested", "endless", "enum", "text", "repeated pattern", "brackets"],
)
def test_a_hostile_schema_is_refused(schema, message):
    with pytest.raises(ConfigError, match=message):
        check_schema(schema, "schema")


def test_a_catastrophic_pattern_takes_linear_time():
    schema = {"type": "string", "pattern": "^(a+)+$"}
    with pytest.raises(ProblemsError):
        validate("a" * 10_000 + "!", schema)


def test_a_schema_that_refers_to_itself_is_accepted():
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    check_schema(tree, "schema")
    with pytest.raises(ProblemsError, match="`child`: "):
        validate({"child": {}}, tree)
    validate({"child": 1}, {"$ref": "#"})


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ConfigError, match=r"jsonschema-rs is not installed.*`schemas`"):
        check_schema({"title": "never seen before"}, "schema")
    assert read_answer_format(Person).parse('{"name": "Ada", "age": 1}').age == 1
    assert read_answer_format("json_object").parse("{}") == {}


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "Ada"}, '"age" is a required property'),
        ({"name": 5, "age": -1}, "`name`: .*; `age`: |`age`: .*; `name`: "),
        ("Ada", 'is not of type "object"'),
    ],
)
def test_problems_name_the_place(value, message):
    with pytest.raises(ProblemsError, match=message) as caught:
        validate(value, PERSON)
    assert "\n" not in str(caught.value)


def test_a_long_problem_is_shortened():
    with pytest.raises(ProblemsError) as caught:
        validate({str(n): n for n in range(5000)}, PERSON)
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1]}',
        ' \n{"a": [1]}\n',
        'Here it is:\n```json\n{"a": [1]}\n```\nDone.',
        '```\n{"a": [1]}```',
        'The answer is {"a": [1]}, as you wanted.',
    ],
)
def test_json_is_found_in_an_answer(text):
    assert find_json(text) == {"a": [1]}


@pytest.mark.parametrize("text", ["", "no", "{", '{"a": ', "[" * 100_000, '{"a"' * 50_000])
def test_an_answer_without_json_is_refused(text):
    with pytest.raises(ProblemsError, match="not JSON"):
        find_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_every_json_value_is_found_again(value):
    assert find_json(json.dumps(value)) == value
    if isinstance(value, (dict, list)):
        assert find_json(f"Yes:\n```json\n{json.dumps(value)}\n```") == value


@pytest.mark.parametrize("text", ["[1]", '"x"', "null"])
def test_json_object_takes_objects_only(text):
    with pytest.raises(ProblemsError, match="not a JSON object"):
        read_answer_format({"type": "json_object"}).parse(text)
