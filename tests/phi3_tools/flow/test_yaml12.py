"""YAML is read as promptflow reads it: with ruamel.yaml, which follows YAML 1.2."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promptflow._utils.yaml_utils import load_yaml_string

from phi3_tools.flow.yaml12 import YamlError, parse_yaml

SCALARS = """
yes no on off y n Yes true True TRUE false null Null ~ 010 0o10 0x1F 0b11 1_000 -0 +7 1e3 1.5e-3 .5 .inf
-.inf .nan 1. 12:30 1:2:3.5 2024-01-31 2024-01-31T10:20:30Z 2024-1-1 0.1.2 v1 - 1e 0x 0o9 1,000 -1 --1 _1
1_ 0_ +.5 -.5e+3 1E5 nan inf NaN none
"""


def same(ours, theirs):
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return ours == theirs and isinstance(theirs, type(ours))


@pytest.mark.parametrize("scalar", SCALARS.split())
def test_a_scalar_has_the_value_of_promptflow(scalar):
    try:
        theirs = load_yaml_string(f"a: {scalar}")["a"]
    except Exception:
        with pytest.raises(YamlError):
            parse_yaml(f"a: {scalar}")
        return
    assert same(parse_yaml(f"a: {scalar}")["a"], theirs)


@given(
    st.text("+-0123456789_.eExob", min_size=1, max_size=6).filter(lambda s: s not in ("-", "..."))
)
def test_a_number_has_the_value_of_promptflow(text):
    try:
        theirs = load_yaml_string(f"[{text}]")[0]
    except Exception:
        return  # not YAML, or not a number that either can read
    assert same(parse_yaml(f"[{text}]")[0], theirs)


def test_merged_keys_anchors_and_blocks():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: |\n  one\n  two\nd: >-\n  one\n  two\n"
    assert parse_yaml(text) == load_yaml_string(text)


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "{", "a: !!python/object:os.system x", "a: 2024-13-01"]
)
def test_invalid_yaml_is_refused(text):
    with pytest.raises(YamlError):
        parse_yaml(text)
