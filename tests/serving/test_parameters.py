"""The fields of a request: what is honoured, what has no effect, and what is refused."""

import json
import math

import parameters
import pytest
from parameters import NOT_SUPPORTED, PARAMETERS, WITHOUT_EFFECT, ScoringError, read_parameters

from pages import check_part, table


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
        ("stop", ["a"] * 33),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stream", "true"),
        ("stream_options", True),
        ("n", 0),
        ("n", 17),
        ("top_k", -2),
        ("top_k", 1.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", 11),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("presence_penalty", "none"),
        ("logit_bias", []),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"1": "x"}),
        ("logprobs", 5),
        ("top_logprobs", 21),
        ("stream_options", {"include_usage": 1}),
        ("stream_options", {"include_usag": True}),
        ("model", 3),
    ],
)
def test_an_invalid_parameter_is_a_400_that_names_it(name, value):
    with pytest.raises(ScoringError, match=f"^{name} must be ") as caught:
        read_parameters({name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def test_a_parameter_that_is_null_has_its_default():
    defaults = {parameter.name: parameter.default for parameter in parameters.PARAMETERS}
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
    assert parameters.describe(value) == description


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_aliases_set_the_same_parameter(name):
    assert read_parameters({name: 7.0})["max_new_tokens"] == 7


def test_aliases_may_repeat_but_not_contradict_each_other():
    assert read_parameters({"max_tokens": 7, "max_new_tokens": 7})["max_new_tokens"] == 7
    with pytest.raises(ScoringError, match="max_new_tokens and max_tokens are the same setting"):
        read_parameters({"max_tokens": 7, "max_new_tokens": 8})


@pytest.mark.finding(
    19,
    "a request sets a parameter that the endpoint does not support, or misspells one",
    "400 with the name of the field, and the nearest known name",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modalities", ["audio"]),
        *((name, 1) for name in NOT_SUPPORTED),
    ],
)
def test_what_is_not_supported_is_refused_with_its_name(name, value):
    with pytest.raises(ScoringError, match=f"^{name} is not supported") as caught:
        read_parameters({name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def test_fields_that_change_nothing_are_accepted():
    defaults = read_parameters({})
    for name in WITHOUT_EFFECT:
        assert read_parameters({name: "anything"}) == defaults
    neutral = {
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "auto",
        "modalities": ["text"],
        "stream_options": {"include_usage": None},
        "functions": None,
    }
    read_parameters(neutral)


def test_a_name_has_one_meaning():
    names = [name for row in PARAMETERS for name in (row.name, *row.aliases)]
    names += [*WITHOUT_EFFECT, *NOT_SUPPORTED]
    assert len(names) == len(set(names))


def test_an_unknown_name_is_refused_even_if_nothing_is_like_it():
    with pytest.raises(ScoringError, match="^colour is not a known field$"):
        read_parameters({"colour": "blue"})
    assert read_parameters({"colour": None}) == read_parameters({})


def test_a_long_name_is_quoted_in_part_and_refused_at_once():
    """Comparing megabytes with every known name would keep a core busy for minutes."""
    with pytest.raises(ScoringError, match="^x{64}… is not a known field$") as caught:
        read_parameters({"x" * 10_000_000: 1})
    assert len(caught.value.param) == 65


def code(names):
    return ", ".join(f"`{name}`" for name in names)


def test_the_fields_are_documented():
    rows = [
        [
            code((row.name, *row.aliases)),
            row.requirement,
            DEFAULTS.get(row.name) or show(row.default),
        ]
        for row in PARAMETERS
    ]
    text = (
        f"{table(['field', 'value', 'default'], rows)}\n"
        f"Accepted without effect: {code(WITHOUT_EFFECT)}.\n\n"
        f"Not supported: {code(NOT_SUPPORTED)}.\n"
    )
    check_part("contracts.md", "fields", text)


DEFAULTS = {
    "max_new_tokens": "128; `openai`: the rest of the context window",
    "do_sample": "true if `temperature` is set",
}


def show(default):
    return "" if default in (None, (), {}) else f"`{json.dumps(default)}`"
