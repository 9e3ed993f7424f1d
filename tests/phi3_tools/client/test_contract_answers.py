"""Contracts: answers, events and error bodies are read by their own shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phi3_tools import BadAnswerError, ScoringFailedError, Usage
from phi3_tools.client.contracts import (
    Decoded,
    decode,
    decode_event,
    error_text,
)
from phi3_tools.client.messages import render
from phi3_tools.client.wire_json import parse_json

GOLDEN = Path(__file__).parents[2] / "golden" / "contracts"
ERRORS = {"ScoringFailedError": ScoringFailedError, "BadAnswerError": BadAnswerError}
# Any text: lone surrogates, control characters, quotes and backslashes included.
TEXTS = st.text(st.characters(exclude_categories=()))


def without_surrogates(text):
    """Return the text that the client makes of it: U+FFFD replaces half a surrogate pair."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def golden(kind):
    files = sorted(GOLDEN.glob(f"*.{kind}.json"))
    assert files
    return [pytest.param(json.loads(f.read_text("utf-8")), id=f.name.split(".")[0]) for f in files]


@pytest.mark.parametrize("case", golden("answer"))
def test_decode(case):
    if "error" in case:
        with pytest.raises(ERRORS[case["error"]]) as caught:
            decode(case["payload"], prompt=case["prompt"])
        assert case["says"] in str(caught.value)
        return
    about = {**case["decoded"]}
    if "usage" in about:
        about["usage"] = Usage(*about["usage"])
    assert decode(case["payload"], prompt=case["prompt"]) == Decoded(**about)


@pytest.mark.parametrize("wrap", [lambda t: [t], lambda t: {"output": t}], ids=["list", "output"])
@given(text=TEXTS)
@example(text="half \ud83d, \ude42")
def test_an_answer_is_returned_unchanged(wrap, text):
    decoded = decode(parse_json(json.dumps(wrap(text)))).text
    assert decoded == without_surrogates(text)
    decoded.encode("utf-8")


JSON_WITH_HALVES = (
    rb'{"output": "a\ud83d", "model": "\udc00", "finish_reason": "\ud800", "\ud801": ["\ud802"]}'
)


@pytest.mark.finding(
    18,
    "an answer with half of a surrogate pair",
    "everything that is read can be written as UTF-8",
)
def test_everything_that_is_parsed_can_be_written():
    for text in (JSON_WITH_HALVES, b'["\xed\xa0\xbd"]', JSON_WITH_HALVES.decode().encode("utf-16")):
        json.dumps(parse_json(text), ensure_ascii=False).encode("utf-8")
    decoded = decode(parse_json(JSON_WITH_HALVES))
    assert decoded == Decoded("a\ufffd", None, "\ufffd", "\ufffd")
    assert decode_event(JSON_WITH_HALVES.decode()).model == "\ufffd"
    inner = decode(parse_json(json.dumps(JSON_WITH_HALVES.decode())))
    assert inner == decoded


PARTS = [
    (["Bill", " Gates"], "Bill Gates"),
    ([{"type": "text", "text": "Bill"}, {"type": "text", "text": " Gates"}], "Bill Gates"),
    ([{"text": "Bill"}], "Bill"),
    ([{"type": "thinking", "thinking": "?"}, {"type": "output_text", "text": "Bill"}], "Bill"),
    ([{"type": "text", "text": ""}], ""),
]
NO_PARTS = [[], [{"type": "image_url", "image_url": {}}], [{"type": "text"}], [None], {"text": "x"}]


@pytest.mark.finding(
    18,
    "an answer whose content is a list of text parts",
    "the parts are read as one text",
)
@pytest.mark.parametrize(("content", "text"), PARTS)
def test_a_content_may_be_a_list_of_parts(content, text):
    message = {"role": "assistant", "content": content}
    for payload in (
        {"choices": [{"message": message}]},
        {"message": message},
        {"output": [message]},
        [{"generated_text": [{"role": "user", "content": "Q"}, message]}],
    ):
        assert decode(payload).text == text
    assert decode_event(json.dumps({"choices": [{"delta": message}]})).text == text


@pytest.mark.parametrize("content", NO_PARTS)
def test_a_content_without_a_text_is_refused(content):
    with pytest.raises(BadAnswerError, match="no message content"):
        decode({"choices": [{"message": {"content": content}}]})
    assert decode_event(json.dumps({"choices": [{"delta": {"content": content}}]})).text == ""


@pytest.mark.finding(18, 'an answer of the form `{"output": ["text"]}`', "the text is read")
@pytest.mark.parametrize("output", [["Bill"], [["Bill"]], [{"generated_text": "Bill"}]])
def test_an_output_may_be_a_list(output):
    decoded = decode({"output": output, "finish_reason": "stop"})
    assert decoded == Decoded("Bill", finish_reason="stop")


def test_an_output_without_a_text_is_refused():
    for output in ([], [1], [None]):
        with pytest.raises(BadAnswerError, match="list without a text"):
            decode({"output": output})


def test_an_answer_of_the_responses_api_is_its_text_and_not_its_id():
    item = {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "Bill"}]}
    assert decode({"output": [item]}).text == "Bill"


@given(text=TEXTS)
@example("[1, 2]")
@example('"')
def test_a_bare_text_is_returned_unchanged(text):
    try:
        is_answer = isinstance(json.loads(text), (list, dict)) and text[:1] in "[{"
    except ValueError:
        is_answer = False
    if not is_answer or text == "[1, 2]":
        assert decode(text).text == text


@given(question=TEXTS, answer=TEXTS.map(str.strip).filter(lambda t: not t.endswith("<|end|>")))
def test_an_echoed_prompt_is_removed(question, answer):
    prompt = render([{"role": "user", "content": question}])
    assert decode([prompt + answer], prompt=prompt).text == answer


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["output", "error", "choices", "message", "content", "delta", "usage"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_payload_is_decoded_or_refused(payload):
    for read in (decode, lambda p: decode_event(json.dumps(p))):
        try:
            assert isinstance(read(payload).text, str)
        except (ScoringFailedError, BadAnswerError) as error:
            assert str(error)


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="too deeply"):
        parse_json("[" * 100_000)
    with pytest.raises(BadAnswerError):
        decode_event('{"choices":' + "[" * 100_000)
    assert decode("[" * 100_000).text == "[" * 100_000


@pytest.mark.parametrize(
    ("event", "decoded"),
    [
        ({"choices": [{"delta": {"content": "Bill"}}]}, Decoded("Bill")),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, Decoded("")),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, Decoded("", None, "stop")),
        ({"choices": [{"message": {"content": "Bill"}}], "model": "m"}, Decoded("Bill", model="m")),
        ({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
         Decoded("", Usage(9, 2))),
        ({"choices": [{"delta": {"content": None}}]}, Decoded("")),
        ({"choices": None}, Decoded("")),
        ({"choices": {"0": "x"}}, Decoded("")),
        ({"choices": [{"delta": "x"}]}, Decoded("")),
        ({"output": "Bill"}, Decoded("Bill")),
        ({"output": "", "finish_reason": "length", "usage": {"prompt_tokens": 1}},
         Decoded("", Usage(1, 0), "length")),
        ({"type": "ping"}, Decoded("")),
    ],
)  # fmt: skip
def test_decode_event(event, decoded):
    assert decode_event(json.dumps(event)) == decoded


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ('{"error": {"message": "The engine failed."}}', ScoringFailedError, "The engine failed"),
        ('{"object": "error", "message": "gone"}', ScoringFailedError, "gone"),
        ("{cut", BadAnswerError, "not JSON"),
        ("[1]", BadAnswerError, "not a JSON object"),
        ("", BadAnswerError, "not JSON"),
    ],
)
def test_a_bad_event_is_an_error(data, error, message):
    with pytest.raises(error, match=message):
        decode_event(data)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"error": {"message": "m", "code": 1}}, "m"),
        ({"detail": "d"}, "d"),
        ({"Message": "M"}, "M"),
        ({"error": {}, "message": "m"}, "m"),
        ({"detail": [{"msg": "ü"}]}, '[{"msg": "ü"}]'),
        ("plain", "plain"),
        ({"code": 3}, '{"code": 3}'),
    ],
)
def test_error_text(payload, words):
    assert error_text(payload) == words
