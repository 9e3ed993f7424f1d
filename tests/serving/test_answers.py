"""The answers of the three contracts, in one piece and as events."""

import pytest
from answers import ChatAnswer, list_answer
from generation import Completion
from payloads import read_request
from sampling import TokenLogprobs

HI = [{"role": "user", "content": "Hi"}]
COMPLETION = Completion("Hello!", 3, "length")
PROMPT = [1, 2, 3, 4, 5]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def decode(ids):
    return bytes(ids).decode(errors="replace")


def chat_answer(**settings):
    request = read_request({"messages": HI, **settings})
    return ChatAnswer(request, "phi3", PROMPT, "chatcmpl-1", 1700000000)


def catalog_answer(**settings):
    request = read_request({"input_data": {"input_string": HI, "parameters": settings}})
    return ChatAnswer(request, "phi3", PROMPT, "chatcmpl-1", 1700000000)


@pytest.mark.parametrize(
    ("full", "expected"), [(False, ["Hello!", "no"]), (True, ["a: Hello!", "b: no"])]
)
def test_a_list_is_answered_with_strings(full, expected):
    completions = [COMPLETION, Completion("no", 1, "stop")]
    assert list_answer(["a: ", "b: "], completions, full) == expected


def test_a_catalog_answer_in_one_piece():
    assert catalog_answer().full_body([COMPLETION], decode) == {
        "output": "Hello!",
        "finish_reason": "length",
        "usage": USAGE,
        "model": "phi3",
        "id": "chatcmpl-1",
    }


def test_a_catalog_answer_as_events():
    answer = catalog_answer(stream=True)
    assert answer.first_events() == []
    assert answer.text_events("He") == [{"output": "He"}]
    assert answer.last_events(COMPLETION) == [
        {**answer.full_body([COMPLETION], decode), "output": ""}
    ]


def test_an_openai_answer_in_one_piece():
    message = {"role": "assistant", "content": "Hello!"}
    assert chat_answer().full_body([COMPLETION], decode) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "phi3",
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": USAGE,
    }


def test_every_choice_has_its_index_and_their_tokens_are_added_up():
    body = chat_answer(n=2).full_body([COMPLETION, Completion("no", 1, "stop")], decode)
    contents = [(choice["index"], choice["message"]["content"]) for choice in body["choices"]]
    assert contents == [(0, "Hello!"), (1, "no")]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def test_log_probabilities_have_the_form_of_openai():
    first, second = "é".encode()
    logprobs = (
        TokenLogprobs(ord("a"), -0.5, ((ord("a"), -0.5), (ord("b"), -1.0))),
        TokenLogprobs(first, -2.0, ()),
    )
    completion = Completion("aé", 3, "length", logprobs)
    body = chat_answer(logprobs=True, top_logprobs=2).full_body([completion], decode)
    assert body["choices"][0]["logprobs"]["content"] == [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": "b", "logprob": -1.0, "bytes": [98]},
            ],
        },
        {"token": "\ufffd", "logprob": -2.0, "bytes": None, "top_logprobs": []},
    ]


@pytest.mark.parametrize("include_usage", [False, True])
def test_an_openai_answer_as_events(include_usage):
    answer = chat_answer(stream=True, stream_options={"include_usage": include_usage})
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "phi3",
    }

    def chunk(delta, reason=None):
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    assert answer.first_events() == [chunk({"role": "assistant", "content": ""})]
    assert answer.text_events("He") == [chunk({"content": "He"})]
    usage_event = {**head, "choices": [], "usage": USAGE}
    expected = [chunk({}, "length"), *([usage_event] if include_usage else [])]
    assert answer.last_events(COMPLETION) == expected


def test_every_answer_has_an_id_of_its_own():
    request = read_request({"messages": HI})
    first, second = (ChatAnswer.start(request, "phi3", PROMPT) for _ in range(2))
    assert first.id.startswith("chatcmpl-")
    assert first.id != second.id
    assert (first.model, first.prompt) == ("phi3", PROMPT)
