"""Rows with preferences: their forms, and their problems."""

import pytest
from inputs import TrainError
from preferences import as_chat, parse_preference

USER = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("good", "bad"))
PARSED = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad", "tags": "other columns"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": "bad"},
    ],
)
def test_every_form_of_a_preference_is_read(row):
    assert parse_preference(row, "here") == PARSED


def test_a_prompt_may_have_several_turns():
    prompt = [{"role": "system", "content": "s"}, USER, GOOD, USER]
    row = parse_preference({"prompt": prompt, "chosen": "good", "rejected": "bad"}, "here")
    assert row["prompt"] == prompt
    assert as_chat(row) == {"messages": [*prompt, GOOD]}
    assert as_chat({"messages": []}) == {"messages": []}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chosen": "bad "}, "the row's chosen and rejected are equal, f line 3: remove the row"),
        ({"chosen": None}, "the row's prompt or chosen is not a text, f line 3: "),
        ({"prompt": 1}, "the row's prompt or chosen is not a text, f line 3: "),
        ({"chosen": [USER, GOOD, GOOD]}, "the row's chosen is not one message, f line 3: "),
        ({"rejected": ""}, r"message 2 \(assistant\) has no content, f line 3, rejected: "),
        ({"prompt": ""}, r"message 1 \(user\) has no content, f line 3, chosen: "),
        ({"chosen": [USER, USER]}, "has the wrong role, f line 3, chosen: "),
    ],
)
def test_a_wrong_row_is_one_line_with_its_location(change, problem):
    row = {"prompt": "q", "chosen": "good", "rejected": "bad"} | change
    with pytest.raises(TrainError, match=problem):
        parse_preference(row, "f line 3")


@pytest.mark.parametrize("row", [{"messages": []}, [], "text", {"prompt": "q", "chosen": "a"}])
def test_a_row_without_two_answers_is_refused(row):
    with pytest.raises(TrainError, match="the row has no prompt, chosen and rejected, here: a row"):
        parse_preference(row, "here")
