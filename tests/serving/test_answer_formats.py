"""`response_format`, `tools` and `tool_choice`: what is read, and what is refused by its name."""

import pytest
from answer_formats import MAX_TOOLS, SCHEMA_FIELD, read_answer_format
from parameters import ScoringError, read_parameters
from payloads import read_request

HI = [{"role": "user", "content": "Hi"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name="weather", **function):
    return {"type": "function", "function": {"name": name, **function}}


def named(name):
    return {"type": "function", "function": {"name": name}}


def json_schema(schema, **fields):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **fields}}


def read(**settings):
    return read_answer_format(read_parameters(settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"response_format": {"type": "text"}}, {"tools": []}, {"tool_choice": "none"}]
    + [{"tool_choice": "auto"}, {"tools": [tool()], "tool_choice": "none"}],
)
def test_any_text_is_an_answer(settings):
    answer_format = read(**settings)
    assert answer_format.is_free
    assert not answer_format.offered_tools


def test_json_has_a_schema():
    assert read(response_format={"type": "json_object"}).schema == {"type": "object"}
    answer_format = read(response_format=json_schema(CITY, strict=True, description="A city."))
    assert answer_format.schema == {**CITY, "additionalProperties": False}
    assert answer_format.schema_field == SCHEMA_FIELD


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "required": ["b"]},
        {"properties": {"a": {}}, "allOf": [{"required": ["b"]}]},
    ],
)
def test_objects_that_need_other_properties_stay_open(schema):
    assert read(response_format=json_schema(schema)).schema == schema


def test_objects_within_a_schema_have_no_other_properties_either():
    within = {"type": "array", "items": {"type": "object", "properties": {"city": CITY}}}
    closed = {**CITY, "additionalProperties": False}
    items = {"type": "object", "properties": {"city": closed}, "additionalProperties": False}
    assert read(response_format=json_schema(within)).schema == {"type": "array", "items": items}


@pytest.mark.parametrize(
    ("choice", "names", "must_call", "many_calls"),
    [
        (None, ["weather", "clock"], False, True),
        ("auto", ["weather", "clock"], False, True),
        ("required", ["weather", "clock"], True, True),
        (named("clock"), ["clock"], True, False),
    ],
)
def test_the_choice_of_a_tool(choice, names, must_call, many_calls):
    tools = [tool(parameters=CITY), tool("clock")]
    answer_format = read(tools=tools, tool_choice=choice)
    assert [item.name for item in answer_format.tools] == names
    assert (answer_format.must_call, answer_format.many_calls) == (must_call, many_calls)
    assert list(answer_format.offered_tools) == tools
    assert not read(tools=tools, parallel_tool_calls=False).many_calls


CLOSED = {**CITY, "additionalProperties": False}
REFERENCE = {"$ref": "#/$defs/city"}


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"prefixItems": [CITY]}, {"prefixItems": [CLOSED]}),
        ({"anyOf": [CITY, {"type": "null"}], "default": None},
         {"anyOf": [CLOSED, {"type": "null"}], "default": None}),
        ({**REFERENCE, "$defs": {"city": CITY}}, {**REFERENCE, "$defs": {"city": CLOSED}}),
        ({"allOf": [REFERENCE], "title": "A", "definitions": {"anyOf": CITY}},
         {"allOf": [REFERENCE], "title": "A", "definitions": {"anyOf": CLOSED}}),
        ({"additionalProperties": CITY}, {"additionalProperties": CLOSED}),
    ],
    ids=["prefixItems", "anyOf", "$ref", "allOf", "additionalProperties"],
)  # fmt: skip
def test_objects_that_are_reached_otherwise_have_no_other_properties_either(schema, closed):
    assert read(response_format=json_schema(schema)).schema == closed


def test_arguments_that_are_a_reference_are_closed():
    (function,) = read(tools=[tool(parameters={**REFERENCE, "$defs": {"city": CITY}})]).tools
    assert function.schema == {"type": "object", **REFERENCE, "$defs": {"city": CLOSED}}


@pytest.mark.parametrize(
    "more",
    [
        {"oneOf": [REFERENCE, {"type": "null"}]},
        {"allOf": [REFERENCE, {"properties": {"b": {}}}]},
        {"anyOf": [REFERENCE], "properties": {"b": {}}},
        {**REFERENCE, "required": ["b"]},
    ],
    ids=["oneOf", "allOf", "anyOf", "$ref"],
)
def test_schemas_that_are_combined_stay_open(more):
    schema = {"$defs": {"city": CITY, "other": more}, **REFERENCE}
    assert read(response_format=json_schema(schema)).schema == schema


def test_a_model_cannot_invent_arguments():
    closed, without, opened = read(
        tools=[
            tool("a", parameters=CITY),
            tool("b"),
            tool("c", parameters={"additionalProperties": {"type": "string"}}),
        ]
    ).tools
    assert closed.schema == {**CITY, "additionalProperties": False}
    assert without.schema == {"type": "object", "properties": {}, "additionalProperties": False}
    assert opened.schema["additionalProperties"] == {"type": "string"}


FORMAT = "response_format"


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({FORMAT: "json_object"}, FORMAT),
        ({FORMAT: {}}, f"{FORMAT}.type"),
        ({FORMAT: {"type": "yaml"}}, f"{FORMAT}.type"),
        ({FORMAT: {"type": "json_object", "schema": {}}}, f"{FORMAT}.schema"),
        ({FORMAT: {"type": "json_schema"}}, f"{FORMAT}.json_schema"),
        ({FORMAT: json_schema(3)}, SCHEMA_FIELD),
        ({FORMAT: json_schema(None)}, SCHEMA_FIELD),
        ({FORMAT: json_schema({}, name=3)}, f"{FORMAT}.json_schema.name"),
        ({FORMAT: json_schema({}, shema={})}, f"{FORMAT}.json_schema.shema"),
        ({FORMAT: json_schema({"not": {}})}, f"{SCHEMA_FIELD}.not"),
        ({FORMAT: json_schema(CITY), "stop": ["\n"]}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool(None)]}, "tools[0].function.name"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool("a\n")]}, "tools[0].function.name"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name"),
        ({"tools": [tool(description=3)]}, "tools[0].function.description"),
        ({"tools": [tool(description="\ud83d")]}, "tools[0].function"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters.type"),
        ({"tools": [tool(parameters={"if": {}})]}, "tools[0].function.parameters.if"),
        ({"tools": [tool(f"t{i}") for i in range(MAX_TOOLS + 1)]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "x"}}, "tool_choice.type"),
        ({"tools": [tool()], "tool_choice": named("x")}, "tool_choice.function.name"),
        ({"tools": [tool()], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"tools": [tool()], "stop": "."}, "stop"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(settings, param):
    with pytest.raises(ScoringError) as caught:
        read_request({"messages": HI, **settings})
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("required", [True, None, 3, "city", {"city": True}, [["a"]], [{}], [None]])
def test_required_must_be_a_list_of_strings(required):
    schema = {**CITY, "required": required}
    for settings, field in (
        ({FORMAT: json_schema({"items": schema})}, f"{SCHEMA_FIELD}.items.required"),
        ({"tools": [tool(parameters=schema)]}, "tools[0].function.parameters.required"),
    ):
        with pytest.raises(ScoringError, match="must be a list of strings, not ") as caught:
            read_request({"messages": HI, **settings})
        assert (caught.value.status, caught.value.param) == (400, field)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ScoringError, match="clock, but another tool is also named clock"):
        read(tools=[tool("clock"), tool(), tool("clock")])


@pytest.mark.parametrize(
    "settings", [{"tools": [tool()]}, {FORMAT: {"type": "json_object"}}], ids=["tools", "json"]
)
def test_only_the_contract_of_openai_has_them(settings):
    with pytest.raises(ScoringError, match="in OpenAI's contract only"):
        read_request({"input_data": {"input_string": HI, "parameters": settings}})
