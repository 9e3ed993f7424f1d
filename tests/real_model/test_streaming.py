"""A stream never splits a character, although a character may consist of several tokens."""

from __future__ import annotations

import json

import pytest
import requests

from phi3_tools import Params, Phi3Client
from tiny_endpoint import KEY

pytestmark = pytest.mark.slow

TOKENS = 48
HEADERS = {"authorization": f"Bearer {KEY}"}
# Emoji (one with skin tone, joined ones, a flag), CJK, Hangul, combining characters, Arabic, Devanagari.
TEXTS = [
    "🙂🚀🎉🌍🍕",
    "👍🏽 👩‍💻 👨‍👩‍👧 🇫🇷",
    "日本の首都は東京です。",
    "中国的首都是北京。",
    "안녕하세요",
    "e\u0301a\u0300o\u0302n\u0303 Ångström",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
]


def question(text: str) -> list[dict[str, str]]:
    """Return a chat whose next answer repeats the text: the examples before it do."""
    chat = []
    for example in ("🍏 🍏 🍏", "Grüße, мир, 世界", text):
        chat.append({"role": "user", "content": f"Repeat this: {example}"})
        chat.append({"role": "assistant", "content": example})
    return chat[:-1]


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_over_http_are_valid_and_join_to_the_answer(endpoint, text):
    url = f"{endpoint}/v1/chat/completions"
    body = {"messages": question(text), "max_tokens": TOKENS, "temperature": 0}
    answer = requests.post(url, json=body, headers=HEADERS, timeout=300).json()
    with requests.post(
        url, json={**body, "stream": True}, headers=HEADERS, stream=True, timeout=300
    ) as response:
        lines = [line.decode() for line in response.iter_lines() if line]  # each is valid UTF-8
    assert lines.pop() == "data: [DONE]"
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
    pieces = [delta["content"] for delta in deltas if delta.get("content")]
    whole_answer = answer["choices"][0]["message"]["content"]
    assert "".join(pieces) == whole_answer
    assert not whole_answer.isascii(), "the model did not repeat the text: the test shows nothing"
    assert_valid(pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_the_client_are_valid_and_join_to_the_answer(endpoint, text):
    params = Params(temperature=0.0, max_new_tokens=TOKENS)
    connection = {"endpoint": f"{endpoint}/score", "contract": "chat", "key": KEY}
    with Phi3Client.from_connection(connection) as client:
        with client.stream(question(text), params) as stream:
            pieces = list(stream)
        assert stream.reply.text == "".join(pieces) == client.chat(question(text), params).text
    assert_valid(pieces)


def assert_valid(pieces: list[str]) -> None:
    """Assert that no piece ends inside a character. Only the limit of tokens may cut the last one."""
    assert len(pieces) > 1
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces[:-1]), pieces
    for piece in pieces:
        assert piece.encode("utf-8").decode("utf-8") == piece  # no half of a surrogate pair


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_that_the_model_is_made_to_say_become_the_text(engine, text):
    from generation import Detokenizer

    tokens = engine.encode(text)
    detokenizer = Detokenizer(engine.decode)
    pieces = [detokenizer.add(token) for token in tokens]
    pieces.append(detokenizer.flush())
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_characters_of_these_texts_consist_of_several_tokens(engine):
    """This shows that the test above can fail."""
    parts = [engine.decode([token]) for text in TEXTS for token in engine.encode(text)]
    assert sum("\N{REPLACEMENT CHARACTER}" in part for part in parts) > 50
