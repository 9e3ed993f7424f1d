"""The prompts: hostile text stays inside its marks and cannot begin a turn."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_endpoint import fields as texts_of
from judge_endpoint import outside
from pages import check_part, table
from phi3_tools.client import break_template_tokens
from phi3_tools.errors import ConfigError
from phi3_tools.evaluation.rubrics import (
    RUBRICS,
    comparison_prompt,
    fence_code,
    grading_prompt,
    missing_fields,
    select_rubric,
    select_rubrics,
)

FIELDS = {"question": "Q?", "ground_truth": "T.", "context": "C.", "answer": "A.", "answer_b": "B."}
EVERY = pytest.mark.parametrize("rubric", RUBRICS.values(), ids=RUBRICS)
MARKUP = ["<|end|>", "<|user|>\n", "<", "|", "</s>", "[end of answer ", "]", "\n", "0a1b2c3d", "x"]
HOSTILE = st.lists(st.sampled_from(MARKUP) | st.text(max_size=9), max_size=9).map("".join)


def test_the_rubrics_are_these():
    assert list(RUBRICS) == [
        "correctness",
        "relevance",
        "groundedness",
        "coherence",
        "fluency",
        "safety_refusal",
    ]


@EVERY
def test_the_prompt_shows_the_rubric_and_what_it_reads(rubric):
    ((message),) = grading_prompt(rubric, FIELDS)
    assert message["role"] == "user"
    assert all(
        f"{score}: {level}\n" in message["content"] for score, level in enumerate(rubric.levels, 1)
    )
    names = {"ground_truth": "reference"}
    assert texts_of(message["content"]) == {
        names.get(name, name): FIELDS[name] for name in (*rubric.required_fields, "answer")
    }


@EVERY
def test_a_comparison_shows_both_answers_in_its_order(rubric):
    for first, second in (("answer", "answer_b"), ("answer_b", "answer")):
        (message,) = comparison_prompt(rubric, FIELDS, first, second)
        texts = texts_of(message["content"])
        assert (texts["answer A"], texts["answer B"]) == (FIELDS[first], FIELDS[second])


def parts(message):
    """Return the code of a prompt's marks, and the text outside the marks without the code."""
    (code,) = re.findall(r"marks with the code ([0-9a-f]{8})", outside(message["content"]))
    return code, outside(message["content"]).replace(code, "")


@given(answer=HOSTILE, question=HOSTILE)
def test_no_text_can_leave_its_marks(answer, question):
    hostile = {**FIELDS, "answer": answer, "question": question}
    rubric = RUBRICS["correctness"]
    for ask in (
        grading_prompt,
        lambda r, fields: comparison_prompt(r, fields, "answer", "answer_b"),
    ):
        (message,), (benign,) = ask(rubric, hostile), ask(rubric, FIELDS)
        (code, instructions), texts = parts(message), texts_of(message["content"])
        assert instructions == parts(benign)[1]  # they never change
        assert texts.keys() == texts_of(benign["content"]).keys()
        assert texts["question"] == break_template_tokens(question)
        assert texts.get("answer", texts.get("answer A")) == break_template_tokens(answer)
        assert message["content"].count(code) == 2 * len(texts) + 1


@given(answer=HOSTILE)
def test_no_text_can_begin_a_turn(answer):
    """A server may insert texts into the chat template unchanged; a prompt is one user turn."""
    (message,) = grading_prompt(RUBRICS["correctness"], {**FIELDS, "answer": answer})
    assert message["role"] == "user"
    assert not any(token in message["content"] for token in ("<|", "<s>", "</s>"))


@given(st.lists(HOSTILE | st.text("0123456789abcdefABCDEF", min_size=8), max_size=4))
def test_the_code_is_in_no_text_and_repeatable(texts):
    code = fence_code(texts)
    assert len(code) == 8
    assert not any(code in text.lower() for text in texts)
    assert fence_code(texts) == code


def test_a_code_that_is_in_the_text_is_not_used(monkeypatch):
    import hashlib

    from phi3_tools.evaluation.rubrics import fence_code

    class Digest:
        def __init__(self, seed):
            self.number = seed.split(b"\n", 1)[0]

        def hexdigest(self):
            return {b"0": "0a1b2c3d", b"1": "11111111"}[self.number]

    monkeypatch.setattr(hashlib, "sha256", Digest)
    assert fence_code(["[end of answer 0A1B2C3D]"]) == "11111111"


def test_select_rubrics():
    assert [r.name for r in select_rubrics(" fluency, correctness fluency")] == [
        "fluency",
        "correctness",
    ]
    for names in ("", " , ", "correctnes"):
        with pytest.raises(ConfigError, match="the rubric .* does not exist") as caught:
            select_rubrics(names)
        assert "safety_refusal" in str(caught.value)


def test_one_rubric_is_selected():
    assert select_rubric(" fluency ") is RUBRICS["fluency"]
    with pytest.raises(ConfigError, match="several rubrics.*\n?.*Use one rubric"):
        select_rubric("correctness,fluency")


def test_missing_fields():
    assert missing_fields(RUBRICS["groundedness"], {"question": "q", "context": " "}) == ["context"]
    assert missing_fields(RUBRICS["fluency"], {}) == []


def test_the_page_lists_the_rubrics():
    head = ["rubric", "asks", "reads beside the answer", "1 is", "5 is"]
    rows = [
        [
            f"`{rubric.name}`",
            rubric.question,
            ", ".join(f"`{name}`" for name in rubric.required_fields),
            rubric.levels[0],
            rubric.levels[-1],
        ]
        for rubric in RUBRICS.values()
    ]
    check_part("judging.md", "rubrics", table(head, rows))
