"""Conversion of prompt flow's chat history and of a tool's inputs into messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools import (
    ConfigError,
    from_chat_history,
    to_chat_history,
)
from phi3_tools.client.history import (
    build_chat,
)

TEXTS = st.text(st.characters(exclude_categories=()))


def chat_of(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def turn(question, answer):
    return {"inputs": {"question": question}, "outputs": {"answer": answer}}


# -- history ---------------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=5)


@given(PAIRS)
def test_history_round_trip(pairs):
    history = [turn(question, answer) for question, answer in pairs]
    assert to_chat_history(from_chat_history(history)) == history


@pytest.mark.parametrize(
    ("history", "messages"),
    [
        (None, []),
        ([], []),
        ([{**turn("q", "a"), "id": "1", "duration": 0.5, "navId": None}],
         [("user", "q"), ("assistant", "a")]),
        ([{"inputs": {"input": "q", "chat_history": []}, "outputs": {"output": "a", "n": 3}}],
         [("user", "q"), ("assistant", "a")]),
        ([{"inputs": {"question": "q", "topic": "t"}, "outputs": {"answer": "a", "context": "c"}}],
         [("user", "q"), ("assistant", "a")]),
        ([turn("q", "")], [("user", "q"), ("assistant", "")]),
        # Failed turns are left out completely.
        ([turn("q", None), turn("r", "b")], [("user", "r"), ("assistant", "b")]),
        ([{"inputs": {"question": "q"}}], []),
        ([{"inputs": {"question": "q"}, "outputs": None}], []),
        ([{"inputs": {"question": "q"}, "outputs": {}}], []),
        ([{"inputs": {}, "outputs": {"answer": "a"}}], []),
    ],
)  # fmt: skip
def test_from_chat_history(history, messages):
    assert from_chat_history(history) == chat_of(*messages)


def test_other_names_for_question_and_answer():
    history = [{"inputs": {"input_data": "q", "k": "x"}, "outputs": {"reply": "a", "raw": "y"}}]
    messages = from_chat_history(history, input_key="input_data", output_key="reply")
    assert messages == chat_of(("user", "q"), ("assistant", "a"))
    assert to_chat_history(messages, input_key="i", output_key="o") == [
        {"inputs": {"i": "q"}, "outputs": {"o": "a"}}
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("x", "item 2 is not"),
        ({"outputs": {}}, "item 2 is not"),
        ({"inputs": "q", "outputs": {"answer": "a"}}, "item 2 is not"),
        ({"inputs": {"question": "q"}, "outputs": "a"}, "item 2 is not"),
        (
            {"inputs": {"a": "x", "b": "y"}, "outputs": {}},
            "`inputs` has no `question`, but .* a, b",
        ),
        (turn("q", ["a"]), "`outputs` has a `answer` that is list, not text"),
        (turn(["q"], "a"), "`inputs` has a `question` that is list, not text"),
    ],
)
def test_wrong_history_is_refused(item, message):
    """A turn that cannot be read is an error and is not dropped."""
    with pytest.raises(ConfigError, match=message):
        from_chat_history([turn("q", "a"), item])


def test_to_chat_history_keeps_answered_turns_only():
    chat = chat_of(
        ("system", "s"),
        ("assistant", "welcome"),
        ("user", "lost"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "open"),
    )
    assert to_chat_history(chat) == [turn("q", "a")]


# -- a tool's inputs -------------------------------------------------------------------------------


def test_build_chat_puts_its_inputs_in_order():
    chat = build_chat(
        "And?", [turn("Who?", "Bill")], chat_of(("user", "Hm."), ("assistant", "Yes.")), "Be brief."
    )
    assert chat == chat_of(
        ("system", "Be brief."),
        ("user", "Who?"),
        ("assistant", "Bill"),
        ("user", "Hm."),
        ("assistant", "Yes."),
        ("user", "And?"),
    )


def test_build_chat_takes_its_question_from_the_messages():
    assert build_chat("", None, chat_of(("user", "Who?")), "") == chat_of(("user", "Who?"))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("", None, None, ""), "does not end with a question. Give the tool `question` or"),
        (("", None, chat_of(("assistant", "x")), ""), "does not end with a question"),
        (("Hi", "x", None, ""), "`chat_history` is str, but must be a list"),
        (("Hi", None, {"role": "user"}, ""), "`messages` is dict, but must be a list"),
    ],
)
def test_build_chat_refuses_wrong_inputs(inputs, message):
    with pytest.raises(ConfigError, match=message):
        build_chat(*inputs)
