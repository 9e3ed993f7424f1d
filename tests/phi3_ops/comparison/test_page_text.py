"""Texts of a report: runs of line breaks are counted, and tall or long texts are clipped."""

from __future__ import annotations

import pytest

from phi3_ops.comparison.page_text import LONGEST, MAX_CHARACTERS, MAX_LINES, PageText, page_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n\ntwo", "one\n\ntwo"),
        ("\n" * 128, "(128 line breaks)"),
        (" \n" * 4, "(4 line breaks)"),
        ("one" + "\n" * 7 + "two\n", "one\n(7 line breaks)\ntwo"),
        ("  code\n    more", "  code\n    more"),
        (["a", 1], '["a", 1]'),
        ("\x1b[2J", "‹U+001B›[2J"),
        ("", ""),
    ],
)
def test_a_short_text_is_not_clipped(text, shown):
    assert page_text(text) == PageText(shown)


def test_a_tall_text_is_clipped():
    lines = [f"line {n}" for n in range(40)]
    text = page_text("\n".join(lines))
    assert text.text.splitlines() == lines and not text.is_cut
    assert text.preview.splitlines() == [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1]} …"]
    assert text.size == "40 lines"


def test_a_long_text_is_clipped_and_its_end_is_left_out():
    text = page_text("x" * (LONGEST + 1))
    assert text.preview == "x" * MAX_CHARACTERS + " …"
    assert (len(text.text), text.size, text.is_cut) == (LONGEST, "20,001 characters", True)
    assert not page_text("x" * LONGEST).is_cut
