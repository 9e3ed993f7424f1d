"""The answers of the three contracts, in one piece and as events."""

import pytest
from answers import ChatAnswer, list_answer
from generation import Completion
from payloads import read_request

HI = [{"role": "user", "content": "Hi"}]
COMPLETION = Completion("Hello!", 3, "length")
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def chat_answer(**settings):
    request = read_request({"messages": HI, **settings})
    return ChatAnswer(request, "phi3", 5, "chatcmpl-1", 1700000000)


def catalog_answer(**settings):
    request = read_request({"input_data": {"input_string": HI, "parameters": settings}})
    return ChatAnswer(request, "phi3", 5, "chatcmpl-1", 1700000000)


@pytest.mark.parametrize(
    ("full", "expected"), [(False, ["Hello!", "no"]), (True, ["a: Hello!", "b: no"])]
)
def test_a_list_is_answered_with_strings(full, expected):
    completions = [COMPLETION, Completion("no", 1, "stop")]
    assert list_answer(["a: ", "b: "], completions, full) == expected


def test_a_catalog_answer_in_one_piece():
    assert catalog_answer().full_body(COMPLETION) == {
        "output": "Hello!",
        "finish_reason": "length",
        "usage": USAGE,
        "model": "phi3",
        "id": "chatcmpl-1",
    }


def test_a_catalog_answer_as_events():
    answer = catalog_answer(stream=True)
    assert answer.first_events() == []
    assert answer.text_event("He") == {"output": "He"}
    assert answer.last_events(COMPLETION) == [{**answer.full_body(COMPLETION), "output": ""}]


def test_an_openai_answer_in_one_piece():
    message = {"role": "assistant", "content": "Hello!"}
    assert chat_answer().full_body(COMPLETION) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "phi3",
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": USAGE,
    }


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
    assert answer.text_event("He") == chunk({"content": "He"})
    usage_event = {**head, "choices": [], "usage": USAGE}
    expected = [chunk({}, "length"), *([usage_event] if include_usage else [])]
    assert answer.last_events(COMPLETION) == expected


def test_every_answer_has_an_id_of_its_own():
    request = read_request({"messages": HI})
    first, second = (ChatAnswer.start(request, "phi3", 5) for _ in range(2))
    assert first.id.startswith("chatcmpl-")
    assert first.id != second.id
    assert (first.model, first.prompt_tokens) == ("phi3", 5)
