"""Which examples enter the training data, and the reasons of the others; the numbers add up."""

import random

import pytest

from phi3_ops.corrections.examples import CHOICE, EDIT, LOST_LINE, THUMB, Example, Origin
from phi3_ops.corrections.selection import select_pairs, select_rows
from phi3_ops.data import KnownTexts

TEST = KnownTexts(["Where is the head office of the company?"])


def example(question, chosen, rejected=None, basis=EDIT, time="", history=()):
    return Example(history, question, chosen, rejected, time, Origin("s", "n", "1", basis))


def check(selection, examples):
    assert len(selection.taken) + len(selection.excluded) == len(examples)
    assert sum(selection.reasons.values()) == len(selection.excluded)


@pytest.mark.parametrize("select", [select_rows, select_pairs])
@pytest.mark.parametrize(
    ("question", "history", "reason"),
    [
        ("where is the head office of the company", (), "question of the test data"),
        ("Where is the head ofice of the company?", (), "nearly a question of the test data"),
        (
            "And now?",
            (("user", "Where is the head office of the company"), ("assistant", "In Bonn.")),
            "question of the test data",
        ),
    ],
)
def test_no_question_of_the_test_data_enters(select, question, history, reason):
    rejected = "bad" if select is select_pairs else None
    examples = [
        example(question, "good", rejected, history=history),
        example("Another one?", "good", rejected),
    ]
    selection = select(examples, TEST)
    check(selection, examples)
    assert [e.question for e in selection.taken] == ["Another one?"]
    assert selection.reasons == {reason: 1}
    assert selection.excluded[0].detail == "Where is the head office of the company?"


def test_a_text_without_a_visible_character_does_not_replace_an_answer():
    examples = [example("one?", "\u200b", time="2"), example("one?", "Yes.", basis=THUMB, time="1")]
    selection = select_rows(examples, TEST)
    check(selection, examples)
    assert [e.chosen for e in selection.taken] == ["Yes."]
    assert selection.reasons == {"empty content": 1}


def test_the_latest_correction_of_a_question_wins():
    examples = [
        example("one?", "first", time="1"),
        example("One", "third", time="3"),
        example("one?", "second", time="2"),
        example("one?", "thumb", basis=THUMB, time="9"),
        example("one?", "third ", basis=THUMB, time="9"),
        example("two?", "a", basis=THUMB, time="1"),
        example("two?", "b", basis=THUMB, time="2"),
    ]
    selection = select_rows(examples, TEST)
    check(selection, examples)
    assert [e.chosen for e in selection.taken] == ["third", "b"]
    assert selection.reasons == {
        **{"earlier correction": 2, "answer that was corrected": 1},
        **{"duplicate": 1, "later answer taken": 1},
    }


def test_the_same_question_in_another_context_is_another_row():
    history = (("user", "a"), ("assistant", "b"))
    examples = [example("and?", "x"), example("and?", "y", history=history)]
    assert len(select_rows(examples, TEST).taken) == 2


def test_pairs_are_unique_and_do_not_contradict_each_other():
    examples = [
        example("one?", "old", "bad", time="1"),
        example("one?", "new", "bad", time="2"),
        example("one?", "new", "bad", basis=LOST_LINE),
        example("two?", "x", "y", basis=CHOICE),
        example("two?", "y", "x", basis=CHOICE),
        example("three?", "x", "y", basis=CHOICE),
        example("three?", "x", "y ", basis=CHOICE),
    ]
    selection = select_pairs(examples, TEST)
    check(selection, examples)
    assert [(e.question, e.chosen) for e in selection.taken] == [("one?", "new"), ("three?", "x")]
    assert selection.reasons == {
        **{"earlier correction": 1, "duplicate": 2, "contradictory choices": 2}
    }


def test_malformed_chats_are_excluded_with_the_reason_of_phi3_data():
    examples = [
        example(" ", "x"),
        example("one?", " "),
        example("two?", "x", history=(("assistant", "a"),)),
        example("three?", "x", history=(("user", "a"),)),
    ]
    selection = select_rows(examples, TEST)
    check(selection, examples)
    assert selection.reasons == {"empty content": 2, "roles out of order": 2}


def test_the_numbers_of_random_examples_add_up():
    rng = random.Random(5)
    questions = ["one?", "two?", "Where is the head office of the company?", ""]
    for _ in range(200):
        examples = [
            example(
                rng.choice(questions),
                rng.choice("abc"),
                rejected,
                rng.choice([EDIT, THUMB]),
                str(rng.random()),
            )
            for rejected in [rng.choice("xyzabc") for _ in range(rng.randrange(12))]
        ]
        check(select_pairs(examples, TEST), examples)
        rows = [example(e.question, e.chosen, None, e.origin.basis, e.time) for e in examples]
        check(select_rows(rows, TEST), rows)
        prompts = [e.prompt for e in select_rows(rows, TEST).taken]
        assert len(set(prompts)) == len(prompts)
