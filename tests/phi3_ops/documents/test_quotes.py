"""Quotes in passages."""

import pytest

from phi3_ops.documents.quotes import find_quote, is_long_enough

TEXT = "The “pump A” has\n  a power of 40 watts – and runs\u00a0on 12 volts. Straße."


@pytest.mark.parametrize(
    ("quote", "part"),
    [
        ("a power of 40 watts", "a power of 40 watts"),
        ('the "pump A" has a power', "The “pump A” has\n  a power"),
        ("“40 watts - and runs on 12 volts.”", "40 watts – and runs\u00a0on 12 volts"),
        ("strasse", "Straße"),
        ("12 volts. Straße.", "12 volts. Straße"),
        ("a power of 41 watts", None),
        ("", None),
        (" \n.", None),
    ],
)
def test_a_quote_is_found_in_another_spelling(quote, part):
    span = find_quote(quote, TEXT)
    assert (span and TEXT[slice(*span)]) == part


def test_a_quote_needs_some_words():
    assert is_long_enough("of 40 watts", TEXT) and not is_long_enough("40 watts", TEXT)
    assert is_long_enough("两个词", TEXT) and is_long_enough("all", "all")
