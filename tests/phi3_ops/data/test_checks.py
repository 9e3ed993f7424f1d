"""The checks of one chat, its digest, and its length in tokens."""

from __future__ import annotations

import pytest

from chats import chat_row
from phi3_ops.data.checks import (
    CONTROL,
    EMPTY,
    NO_ANSWER,
    NO_MESSAGES,
    ROLES,
    Chat,
    chat_digest,
    check_chat,
    estimate_tokens,
    normalise_text,
    shorten_chat,
    token_counter,
)
from phi3_ops.errors import OpsError

SYSTEM = {"role": "system", "content": "Be brief."}


def with_system(row):
    return {**row, "messages": [SYSTEM, *row["messages"]]}


@pytest.mark.parametrize("system", [False, True])
def test_a_good_chat(system):
    row = chat_row(" q1 ", "a1", "q2", "a2")
    chat = check_chat(with_system(row) if system else row)
    assert isinstance(chat, Chat)
    assert (chat.prompt, chat.answer, chat.system) == (" q1 ", "a1", system)
    assert "q1\n\0\na1" in chat.text
    assert isinstance(check_chat(chat_row("a\tb\r\nc\fd", "ü\u2028")), Chat)


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ([1], NO_MESSAGES, "not a JSON object"),
        ({}, NO_MESSAGES, "no `messages`"),
        ({"messages": "x"}, NO_MESSAGES, "no `messages`"),
        ({"messages": []}, NO_MESSAGES, "no `messages`"),
        ({"messages": ["x"]}, ROLES, "message 1 has the role None, not 'user'"),
        ({"messages": [SYSTEM, SYSTEM]}, ROLES, "message 2 has the role 'system', not 'user'"),
        (chat_row("q", ""), EMPTY, "message 2 (assistant) is empty"),
        ({"messages": [{"role": "user", "content": None}]}, EMPTY, "message 1 (user) is empty"),
        (
            chat_row("q\x1b[31m", "a"),
            CONTROL,
            "message 1 (user) contains the control character U+001B",
        ),
        (
            chat_row("q", "a\n\0\nb"),
            CONTROL,
            "message 2 (assistant) contains the control character U+0000",
        ),
        (chat_row("q", "a", "q"), NO_ANSWER, "the last message is not the assistant's"),
        ({"messages": [SYSTEM]}, NO_ANSWER, "the last message is not the assistant's"),
    ],
)
def test_a_bad_chat_has_a_reason(row, reason, detail):
    assert check_chat(row) == (reason, detail)


def test_a_long_chat_is_checked_message_by_message():
    """The quick check knows the roles of 2,000 messages; longer chats take the slower one."""
    assert isinstance(check_chat(chat_row(*["x"] * 2100)), Chat)


def test_line_ends_and_composed_characters_are_normalised():
    assert normalise_text("a\r\nb") == "a\nb"
    assert normalise_text("u\u0308") == "ü"


def digest(*contents):
    return chat_digest(check_chat(chat_row(*contents)))


def test_equal_texts_have_equal_digests():
    assert digest("q", "a\r\nb ") == digest(" q\n", "a\nb")
    assert (
        len({digest("q", "a"), digest("q", "b"), digest("q a", "a"), digest("q", "a", "q", "a")})
        == 4
    )


def test_the_estimate_counts_other_characters_one_by_one():
    assert estimate_tokens(check_chat(chat_row("abcd", "efgh"))) == 2 + 2 * 4 + 1
    assert estimate_tokens(check_chat(chat_row("你好", "efgh"))) == 3 + 2 * 4 + 1


@pytest.mark.parametrize("system", [False, True])
def test_a_chat_is_shortened_to_whole_turns(system):
    row = chat_row("q1", "a1", "q2", "a2", "q3", "a3")
    chat = check_chat(with_system(row) if system else row)

    def count(chat):
        return len(chat.messages)

    assert shorten_chat(chat, 4 + system, count).messages == chat.messages[: 4 + system]
    assert shorten_chat(chat, 3 + system, count).messages == chat.messages[: 2 + system]
    assert shorten_chat(chat, 1 + system, count) is None


def test_a_tokenizer_is_a_folder_or_its_file(tiny_model_dir):
    chat = check_chat(chat_row("Who?", "Me."))
    folder, file = tiny_model_dir, tiny_model_dir / "tokenizer.json"
    assert token_counter(str(folder))(chat) == token_counter(str(file))(chat) > 8


def test_an_unreadable_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(OpsError, match="cannot read the tokenizer"):
        token_counter(str(tmp_path))
