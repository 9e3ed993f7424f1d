"""A chat that is longer than the window of 8,192 tokens is fitted by the client, with exact counts."""

from __future__ import annotations

import pytest
import requests

from phi3_tools import Params, Phi3Client, PromptTooLongError
from phi3_tools.client.messages import fit, tokenizer_counter
from tiny_endpoint import KEY

pytestmark = pytest.mark.slow

WINDOW, ANSWER = 8192, 8
SYSTEM = {"role": "system", "content": "You answer in one short sentence."}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
SENTENCE = "The train to the coast leaves at nine, and the journey takes almost three hours."
PARAMS = Params(temperature=0.0, max_new_tokens=ANSWER)


@pytest.fixture(scope="module")
def counter(smollm2_folder):
    return tokenizer_counter(str(smollm2_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def client(endpoint, smollm2_folder):
    connection = {"endpoint": f"{endpoint}/score", "contract": "chat", "key": KEY}
    tokenizer = str(smollm2_folder / "tokenizer.json")
    with Phi3Client.from_connection({**connection, "tokenizer": tokenizer}) as client:
        yield client


def long_chat(turns: int) -> list[dict[str, str]]:
    history = []
    for number in range(turns):
        history.append({"role": "user", "content": f"Note {number}: {SENTENCE} {SENTENCE}"})
        history.append({"role": "assistant", "content": f"I have noted number {number}."})
    return [SYSTEM, *history, QUESTION]


@pytest.fixture(scope="module")
def chats(counter):
    """A chat that takes the whole window once it is fitted, and the same chat with one token more."""
    chat = long_chat(250)
    fitted = fit(chat, context_window=WINDOW, max_new_tokens=ANSWER, counter=counter)
    padding = WINDOW - ANSWER - counter.most_of(fitted)
    return [
        [*chat[:-1], {**QUESTION, "content": QUESTION["content"] + " train" * words}]
        for words in (padding, padding + 1)
    ]


def test_a_chat_longer_than_the_window_is_fitted_to_the_last_token(endpoint, counter, chats):
    """The endpoint accepts the fitted chat. Reading 8,192 tokens takes minutes, so it is not awaited."""
    chat = chats[0]
    assert counter.most_of(chat) > 1.5 * WINDOW
    fitted = fit(chat, context_window=WINDOW, max_new_tokens=ANSWER, counter=counter)
    assert fitted[:1] + fitted[-1:] == chat[:1] + chat[-1:]
    assert counter.most_of(fitted) + ANSWER == WINDOW
    with ask(endpoint, fitted, ANSWER, stream=True) as response:
        assert response.status_code == 200
        assert next(response.iter_lines()).startswith(b"data: ")


def test_one_token_more_is_refused_with_the_count_that_the_client_has(endpoint, counter, chats):
    fitted, shorter = (
        fit(chat, context_window=WINDOW, max_new_tokens=ANSWER, counter=counter) for chat in chats
    )
    assert len(shorter) == len(fitted) - 2
    too_long = [*fitted[:-1], chats[1][-1]]
    for messages, max_tokens in ((too_long, ANSWER), (fitted, ANSWER + 1)):
        with ask(endpoint, messages, max_tokens) as refused:
            assert refused.status_code == 400
            error = refused.json()["error"]
        assert error["param"] == "max_tokens", error
        assert f"the prompt has {counter.most_of(messages)} tokens" in error["message"]
        assert f"together {WINDOW + 1}, more than" in error["message"]


def ask(endpoint, messages, max_tokens, stream=False):
    body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": stream}
    url, headers = f"{endpoint}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
    return requests.post(url, json=body, headers=headers, stream=stream, timeout=60)


def test_a_question_that_alone_is_one_token_too_long_is_an_error(client, counter):
    room = WINDOW - ANSWER - counter.most_of([SYSTEM, {**QUESTION, "content": "Repeat:"}])
    question = {**QUESTION, "content": "Repeat:" + " train" * (room + 1)}
    with pytest.raises(PromptTooLongError):
        client.chat([SYSTEM, question], PARAMS, context_window=WINDOW)


@pytest.mark.parametrize("has_system", [True, False])
def test_a_short_chat_is_counted_as_the_endpoint_counts(client, counter, has_system):
    """Without a system message, this model's template adds one, which takes tokens as well."""
    chat = long_chat(2)[0 if has_system else 1 :]
    reply = client.chat(chat, PARAMS, context_window=WINDOW)
    assert reply.usage.prompt_tokens == counter.most_of(chat)
