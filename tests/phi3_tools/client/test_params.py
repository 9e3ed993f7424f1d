"""Generation parameters: accepted and refused values."""

from __future__ import annotations

import pytest

from phi3_tools import ConfigError, Params


@pytest.mark.finding(
    24, "parameters of a call have a wrong type", "`ConfigError` with the name of the parameter"
)
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("max_new_tokens", [0, -1, 1.5, True, "8", float("nan")], "a whole number of at least 1"),
        ("temperature", [-0.1, 2.1, "0", False, float("nan")], "a number between 0 and 2"),
        ("top_p", [0, -1, 1.01, "1", float("inf")], "a number above 0 and at most 1"),
        ("stop", [5, [1], ["a", None], {"a": 1}], "a text or a list of texts"),
        ("seed", [1.0, "1", True], "a whole number"),
        ("extra", [None, "top_k", [1]], "a mapping of parameters"),
    ],
)
def test_wrong_parameters_are_refused(name, values, message):
    for value in values:
        with pytest.raises(ConfigError, match=message) as caught:
            Params(**{name: value})
        assert f"{name} is {value!r}" in str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_new_tokens": 1, "temperature": 0, "top_p": 1, "seed": 0, "stop": []},
        {"temperature": 2.0, "top_p": 0.01, "seed": -1, "stop": ("a", "b")},
    ],
)
def test_valid_parameters_are_accepted(params):
    accepted = Params(**params)
    assert {name: getattr(accepted, name) for name in params} == params
