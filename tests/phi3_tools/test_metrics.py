"""Scores against SQuAD's evaluation script, and means that can be trusted."""

from __future__ import annotations

import math
import re
import statistics
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools.metrics import Mean, exact_match, mean_of, normalise, token_f1

TEXTS = st.text(max_size=40)
WORDS = st.lists(st.sampled_from(["the", "a", "Bill", "Gates", "co-founder", "$5", "!"])).map(
    " ".join
)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126))
SCORES = st.lists(st.floats(0, 1), max_size=20)


def squad_normalise(text):
    """`normalize_answer` of SQuAD's evaluate-v2.0.py, put together."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@given(ASCII)
def test_normalise_is_squads(text):
    assert normalise(text) == squad_normalise(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, a dog.", "cat dog"),
        ("co-founder", "cofounder"),
        ("$5 + 1", "5 1"),
        ("a\nnew\tline", "new line"),
        ("Theatre another", "theatre another"),
        ("Straße", "strasse"),
        ("ＡＢＣ。", "abc"),
        ("„Wien“", "wien"),
        ("¿Qué?", "qué"),
        ("the", ""),
        ("", ""),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "f1"),
    [
        ("Denver Broncos", "The Denver Broncos!", 1, 1),
        ("Bill Gates and Paul Allen", "Bill Gates", 0, 4 / 7),
        ("Bill Gates", "Bill Gates and Paul Allen", 0, 4 / 7),
        ("gates gates", "gates", 0, 2 / 3),
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
        ("the", "", 1, 1),
        ("", "", 1, 1),
    ],
)
def test_scores(answer, truth, exact, f1):
    assert exact_match(answer, truth) == exact
    assert token_f1(answer, truth) == pytest.approx(f1)


@pytest.mark.parametrize("texts", [TEXTS, WORDS], ids=["any", "words"])
def test_bounds_and_symmetry(texts):
    @given(texts, texts)
    def holds(one, other):
        f1, exact = token_f1(one, other), exact_match(one, other)
        assert exact in (0, 1)
        assert exact <= f1 <= 1
        assert (f1, exact) == (token_f1(other, one), exact_match(other, one))
        assert token_f1(one, one) == exact_match(one, one) == 1

    holds()


@given(SCORES, st.integers(0, 5))
def test_mean(scores, failures):
    values = [*scores, *[0.0] * failures]
    found = mean_of(scores, failures=failures)
    assert found.n == len(values)
    if values:
        assert found.mean == pytest.approx(statistics.fmean(values))
    if len(values) > 1:
        expected = statistics.stdev(values) / math.sqrt(len(values))
        assert found.stderr == pytest.approx(expected, abs=1e-9)


def test_small_means():
    assert mean_of([]) == Mean(0, 0.0, 0.0)
    assert mean_of([0.5]) == Mean(1, 0.5, 0.0)
    assert mean_of([1.0], failures=1).mean == 0.5
    with pytest.raises(ValueError, match="failures is -1"):
        mean_of([], failures=-1)
