"""Reading requests: contracts, parameters, and errors."""

import math

import payloads
import pytest
from generation import GenerationParams
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import ScoringError, read_parameters, read_request, wants_stream

HI = [{"role": "user", "content": "Hi"}]


def catalog(content, **parameters):
    return {"input_data": {"input_string": content, "parameters": parameters}}


@pytest.mark.parametrize(
    ("payload", "contract", "prompts"),
    [
        ({"input_data": ["a", "b"]}, "list", ["a", "b"]),
        ({"input_data": "a"}, "list", ["a"]),
        ({"input_data": []}, "list", []),
        (catalog(["a"]), "list", ["a"]),
        (catalog("a"), "list", ["a"]),
        (catalog(HI), "catalog", [HI]),
        (catalog([HI]), "catalog", [HI]),
        ({"messages": HI, "model": "any"}, "openai", [HI]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "openai",
            [HI],
        ),
    ],
)
def test_the_contract_is_detected_from_the_request(payload, contract, prompts):
    request = read_request(payload)
    assert (request.contract, request.prompts) == (contract, prompts)


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"input_data": 3}, "input_data"),
        ({"input_data": [1]}, "input_data"),
        ({"input_data": {}}, "input_data"),
        ({"input_data": {"columns": []}}, "input_data"),
        ({"input_data": ["a"], "params": [1]}, "params"),
        (catalog(3), "input_string"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [*HI, {"role": "user", "content": [{}]}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages[0].content"),
        ({"input_data": ["ok", "\ude00"]}, "input_data"),
        ({"input_data": ["a"], "params": {"stream": True}}, "stream"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_a_400_that_names_the_field(payload, param):
    with pytest.raises(ScoringError) as caught:
        read_request(payload)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.body["error"]["param"] == param
    assert not wants_stream(payload)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", "12"),
        ("max_new_tokens", True),
        ("max_new_tokens", math.inf),
        ("max_new_tokens", math.nan),
        ("max_tokens", 0),
        ("max_completion_tokens", "many"),
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", math.nan),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("do_sample", 1),
        ("do_sample", "false"),
        ("return_full_text", "yes"),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", 3),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stream", "true"),
        ("stream_options", True),
        ("n", 2),
    ],
)
def test_an_invalid_parameter_is_a_400_that_names_it(name, value):
    with pytest.raises(ScoringError, match=f"^{name} must be ") as caught:
        read_parameters({name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def test_a_parameter_that_is_null_has_its_default():
    defaults = {parameter.name: parameter.default for parameter in payloads.PARAMETERS}
    assert read_parameters({}) == defaults
    assert read_parameters(dict.fromkeys(defaults)) == defaults


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (None, "null"),
        ({}, "an object"),
        ([], "an array"),
        ("x", "a string"),
        (True, "a boolean"),
        (1.5, "1.5"),
        (math.nan, "nan"),
    ],
)
def test_an_error_describes_the_value_in_terms_of_json(value, description):
    assert payloads._describe(value) == description


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_aliases_set_the_same_parameter(name):
    assert read_parameters({name: 7.0})["max_new_tokens"] == 7


def test_aliases_may_repeat_but_not_contradict_each_other():
    assert read_parameters({"max_tokens": 7, "max_new_tokens": 7})["max_new_tokens"] == 7
    with pytest.raises(ScoringError, match="max_new_tokens and max_tokens are the same setting"):
        read_parameters({"max_tokens": 7, "max_new_tokens": 8})


def test_unknown_parameters_are_ignored():
    assert (
        read_request({"messages": HI, "user": "me", "logit_bias": {}}).params == GenerationParams()
    )


@pytest.mark.parametrize(
    ("parameters", "sampled", "temperature"),
    [
        ({}, False, 1.0),
        ({"temperature": 0}, False, 1.0),
        ({"temperature": 0.5}, True, 0.5),
        ({"temperature": 0.5, "do_sample": False}, False, 0.5),
        ({"temperature": 0, "do_sample": True}, False, 1.0),
        ({"do_sample": True}, True, 1.0),
        ({"do_sample": False}, False, 1.0),
        ({"top_p": 0.5}, False, 1.0),
    ],
)
def test_decoding_is_greedy_unless_the_request_asks_for_sampling(parameters, sampled, temperature):
    params = read_request(catalog(HI, **parameters)).params
    assert (params.do_sample, params.temperature) == (sampled, temperature)


def test_each_contract_has_its_parameters_in_its_own_place():
    for payload in (
        {"input_data": ["a"], "params": {"max_new_tokens": 3}},
        catalog(HI, max_new_tokens=3),
        {"messages": HI, "max_new_tokens": 3},
    ):
        assert read_request(payload).params.max_new_tokens == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "text", "input_string", "parameters", "stream", "stop"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"input_data": JSON, "messages": JSON, "params": JSON, "max_tokens": JSON, "stop": JSON}
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JSON | BODIES)
def test_no_body_raises_anything_but_a_scoring_error(body):
    try:
        read_request(body)
    except ScoringError as error:
        assert error.status == 400
