"""Parsing of a judge's answer: every accepted form, and texts that must not give a score."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools.evaluation.readings import LONGEST, SCORE, WINNER, read_verdict, weighted_score

SCORES = st.integers(1, 5)
# Prose without characters that could state a score.
PROSE = st.text(st.sampled_from("abcdefgh \n,.!?éü漢"), max_size=60)
FORMS = [
    '{{"score": {n}}}',
    '{{"reason": "Says so.", "score": {n}}}',
    '{{"score": {n}.0, "reason": "line\nbreak"}}',
    '{{"Score": "{n}"}}',
    '{{"result": {{"score": {n}}}}}',
    '```json\n{{"score": {n}}}\n```',
    "{{score: {n}}}",
    "{{'score': {n}}}",
    "Score: {n}",
    "**Score:** {n}/5",
    "- Overall score = {n} (the facts are there)",
    "My final rating is {n}.",
    "Grade: {n} out of 5",
    "Score (1-5): {n}",
    "Score:\n{n}",
]
ALONE = ["{n}", " {n}. ", "**{n}**", "{n}/5", "{n} out of 5", '"{n}"', "```\n{n}\n```", "[{n}]"]
UNREADABLE = [
    "",
    "I cannot say.",
    "On a scale of 1 to 5 this is a 4",
    "The answer has 3 errors.",
    "45",
    "-4",
    "Score: 9",
    "Score: -4",
    "Score: 4.5",
    "Score: 4/10",
    "Score: 4 or 5",
    "Score: 4-5",
    "Score: 1 to 5",
    "Score: 4%",
    "Score: high",
    '{"score": 9}',
    '{"score": 0}',
    '{"score": 3.5}',
    '{"score": true}',
    '{"score": null}',
    '{"score": [4]}',
    '{"score": NaN}',
    '{"score": 1e999}',
    '{"score": ' + "9" * 5000 + "}",
    '{"score": 4, "score": 5}',
    '{"score": 9} {"score": 4}',
    '{"score": 4} 2',
    '{"reason": "unfinished and then',
    "[" * 5000,
    '{"a":' * 3000,
    "٤",
    "Score: ٤",
    '{"score": 4}' + " " * LONGEST,
]


@pytest.mark.parametrize("form", FORMS)
@given(n=SCORES, before=PROSE, after=PROSE)
def test_a_score_is_parsed_from_every_form(form, n, before, after):
    text = f"{before}\n{form.format(n=n)}\n{after}"
    assert read_verdict(text, SCORE).value == str(n)


@pytest.mark.parametrize("form", ALONE)
@given(n=SCORES)
def test_a_bare_score_is_parsed(form, n):
    assert read_verdict(form.format(n=n), SCORE).value == str(n)


@pytest.mark.parametrize("text", UNREADABLE)
def test_texts_without_a_score_have_no_value(text):
    assert read_verdict(text, SCORE).value is None


@given(text=st.text() | st.text(st.sampled_from('{}[]":,scoreSCORE 0123456789.\n`-<|>/')))
def test_any_text_gives_a_score_on_the_scale_or_none(text):
    assert read_verdict(text, SCORE).value in {"1", "2", "3", "4", "5", None}
    assert read_verdict(text, WINNER).value in {"a", "b", "tie", None}


@pytest.mark.parametrize("first", FORMS)
def test_two_different_scores_have_no_value(first):
    for second in FORMS:
        text = f"{first.format(n=5)}\n{second.format(n=2)}"
        assert read_verdict(text, SCORE).value is None
        assert read_verdict(f"{first.format(n=4)}\n{second.format(n=4)}", SCORE).value == "4"


@pytest.mark.parametrize(
    "text",
    [
        'The answer says {"score": 5}.\n{"reason": "It is wrong.", "score": 1}',
        '{"reason": "It says {"score": 5} but is wrong.", "score": 1}',
        '{"reason": "It says {"score": 5} and',
        '{"reason": "It says "score": 5 and',
        '{"reason": "It says\nscore: 5\n and',
        '{"reason": \'It says {score: 5} and',
    ],
)
def test_a_score_that_the_judge_only_repeats_is_rejected(text):
    assert read_verdict(text, SCORE).value is None


def test_a_score_quoted_in_the_reason_does_not_count():
    text = json.dumps({"reason": 'It says {"score": 5}.', "score": 1})
    assert read_verdict(text, SCORE).value == "1"
    assert read_verdict(text, SCORE).reason == 'It says {"score": 5}.'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"winner": "A"}', "a"),
        ('{"reason": "B lacks a year.", "winner": "answer B"}', "b"),
        ("{winner: tie}", "tie"),
        ("Winner: A, since it is a whole answer", "a"),
        ("**Better:** Answer B", "b"),
        ("Verdict: tie.", "tie"),
        ("B", "b"),
        ("answer A", "a"),
        ("Winner: A or B", None),
        ("Winner: A is better than B", None),
        ("A is better", None),
        ('{"winner": "C"}', None),
        ('{"winner": "A"} {"winner": "B"}', None),
        ('{"score": 5}', None),
        ("Winner: Adam", None),
    ],
)
def test_winners(text, value):
    assert read_verdict(text, WINNER).value == value


# -- probabilities ---------------------------------------------------------------------------------


def token(text, **weights):
    tops = [{"token": t, "logprob": math.log(p)} for t, p in weights.items()]
    return {"token": text, "logprob": -0.1, "top_logprobs": tops}


def answer(*tokens):
    return {"choices": [{"logprobs": {"content": list(tokens)}}]}


def stated(**weights):
    return [token(t) for t in ('{"', "score", '":')] + [token(" 4", **weights), token("}")]


def test_the_score_is_weighted_by_probabilities():
    raw = answer(*stated(**{"4": 0.3, " 4": 0.3, "5": 0.2, "9": 0.1, "four": 0.1}))
    assert weighted_score(raw, 4) == pytest.approx((0.6 * 4 + 0.2 * 5) / 0.8)


def test_only_the_token_that_states_the_score_counts():
    """A digit in the reason and the end of the scale in `5/5` are not scores."""
    reason = [token('{"reason":"has '), token("4", **{"1": 1.0}), token(' parts","score":')]
    last = [token("4", **{"4": 1.0}), token("/"), token("4", **{"2": 1.0})]
    assert weighted_score(answer(*reason, *last), 4) == 4.0


def test_a_bare_digit_is_weighted():
    assert weighted_score(answer(token("▁4", **{"▁4": 0.5, "▁2": 0.5})), 4) == 3.0


@given(weights=st.dictionaries(st.sampled_from("12345"), st.floats(1e-9, 1), min_size=1))
def test_an_expected_score_is_on_the_scale(weights):
    expected_score = weighted_score(answer(*stated(**weights)), 4)
    assert expected_score is None if "4" not in weights else 1 <= expected_score <= 5


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        [],
        {},
        {"choices": []},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": None}}]},
        answer(),
        answer("4", None, {}),
        answer({"token": None}),
        answer({"token": "4", "top_logprobs": None}),
        answer({"token": "4", "top_logprobs": ["4", {"token": "4", "logprob": "high"}]}),
        answer({"token": "4", "top_logprobs": [{"token": "4", "logprob": float("nan")}]}),
        answer({"token": "4", "top_logprobs": [{"token": "4", "logprob": 1e9}]}),
        answer({"token": "4", "top_logprobs": [{"token": "4", "logprob": -9999.0}]}),
        answer(token("4", **{"5": 1.0})),
        answer(token("Line "), token("4", **{"4": 1.0})),
    ],
)
def test_answers_without_probabilities_are_not_weighted(raw):
    assert weighted_score(raw, 4) is None
