"""Values are converted to the types of flow inputs as promptflow converts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promptflow.contracts.tool import ValueType

from phi3_tools.flow.values import UNSUPPORTED_TYPES, VALUE_TYPES, contains_image, convert

texts = st.sampled_from(
    [
        "",
        "1",
        " 2 ",
        "1.5",
        "nan",
        "inf",
        "true",
        "FALSE",
        "yes",
        "[1]",
        "{}",
        '"x"',
        "[",
        "null",
        "ü",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


def result_of(function, value):
    try:
        result = function(value)
    except Exception as error:
        return type(error)
    return type(result), repr(result)


@pytest.mark.parametrize("value_type", VALUE_TYPES)
@given(value=values)
def test_a_value_is_converted_as_by_promptflow(value_type, value):
    ours = result_of(lambda item: convert(item, value_type), value)
    assert ours == result_of(ValueType(value_type).parse, value)


def test_the_types_are_those_of_promptflow():
    assert set(VALUE_TYPES) == {item.value for item in ValueType}
    assert set(UNSUPPORTED_TYPES) < set(VALUE_TYPES)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"data:image/png;path": "a.png"}, True),
        ([{"a": [{"data:image/jpeg;url": "https://example.com"}]}], True),
        ({"data:image/png;path": "x", "more": 1}, False),
        ({"data:image/png": "x", "a": ["data:image/png;path"]}, False),
        ("data:image/png;path", False),
    ],
)
def test_an_image_is_found_at_any_depth(value, found):
    assert contains_image(value) is found
