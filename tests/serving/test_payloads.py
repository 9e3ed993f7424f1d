"""Reading requests: contracts, parameters, and errors."""

import pytest
from engine import MAX_WAITING
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import ScoringError
from payloads import MAX_TEXTS, read_request, wants_stream
from sampling import GenerationParams

HI = [{"role": "user", "content": "Hi"}]


def catalog(content, **parameters):
    return {"input_data": {"input_string": content, "parameters": parameters}}


@pytest.mark.parametrize(
    ("payload", "contract", "prompts"),
    [
        ({"input_data": ["a", "b"]}, "list", ["a", "b"]),
        ({"input_data": "a"}, "list", ["a"]),
        ({"input_data": []}, "list", []),
        (catalog(["a"]), "list", ["a"]),
        (catalog("a"), "list", ["a"]),
        (catalog(HI), "catalog", [HI]),
        (catalog([HI]), "catalog", [HI]),
        ({"messages": HI, "model": "phi3"}, "openai", [HI]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            "openai",
            [HI],
        ),
    ],
)
def test_the_contract_is_detected_from_the_request(payload, contract, prompts):
    request = read_request(payload)
    assert (request.contract, request.prompts) == (contract, prompts)


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"input_data": 3}, "input_data"),
        ({"input_data": [1]}, "input_data"),
        ({"input_data": {}}, "input_data"),
        ({"input_data": {"columns": []}}, "input_data"),
        ({"input_data": ["a"], "params": [1]}, "params"),
        (catalog(3), "input_string"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "developer", "content": "Hi"}]}, "messages[0].role"),
        (catalog([{"role": "tool", "content": "Hi"}]), "input_string[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [*HI, {"role": "user", "content": [{}]}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, "messages[0].content"),
        ({"input_data": ["ok", "\ude00"]}, "input_data"),
        ({"input_data": ["a"], "params": {"stream": True}}, "stream"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_a_400_that_names_the_field(payload, param):
    with pytest.raises(ScoringError) as caught:
        read_request(payload)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.body["error"]["param"] == param
    assert not wants_stream(payload)


def test_only_openai_requests_have_no_limit_of_their_own():
    assert read_request({"input_data": ["a"]}).params == GenerationParams(max_new_tokens=128)
    assert read_request(catalog(HI)).params.max_new_tokens == 128
    assert read_request({"messages": HI}).params == GenerationParams(max_new_tokens=None)
    assert read_request({"messages": HI, "max_tokens": 5}).params.max_new_tokens == 5


@pytest.mark.parametrize(
    ("payload", "param", "hint"),
    [
        ({"messages": HI, "temperatur": 1}, "temperatur", "did you mean temperature"),
        ({"messages": HI, "max_token": 1}, "max_token", "did you mean max_tokens"),
        ({"messages": HI, "params": {}}, "params", "not a known field"),
        ({"messages": HI, "input_data": ["a"]}, "input_data", "not a known field"),
        ({"input_data": ["a"], "parameters": {"top_p": 1}}, "parameters", "did you mean params"),
        ({"input_data": ["a"], "max_tokens": 3}, "max_tokens", "not a known field"),
        ({"input_data": ["a"], "params": {"topk": 3}}, "topk", "did you mean top_k"),
        (catalog(HI, stopp=["a"]), "stopp", "did you mean stop"),
        (
            {"input_data": {"input_string": HI, "params": {"top_p": 1}}},
            "input_data.params",
            "did you mean input_data.parameters",
        ),
        (
            {"messages": [{"role": "user", "content": "Hi", "name": "Eve"}]},
            "messages[0].name",
            "not a known field",
        ),
        (
            {"messages": [{"role": "user", "content": "Hi", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
            "not a known field",
        ),
    ],
)
def test_an_unknown_field_is_refused_with_the_most_similar_name(payload, param, hint):
    with pytest.raises(ScoringError, match=hint) as caught:
        read_request(payload)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({"input_data": ["a"], "params": {"n": 2}}, "n"),
        (catalog(HI, n=2), "n"),
        (catalog(HI, logprobs=True), "logprobs"),
        ({"messages": HI, "n": 2, "stream": True}, "n"),
        ({"messages": HI, "logprobs": True, "stream": True}, "logprobs"),
        ({"messages": HI, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": HI, "return_full_text": True}, "return_full_text"),
        (catalog(HI, return_full_text=True), "return_full_text"),
    ],
)
def test_a_parameter_that_the_answer_has_no_place_for_is_refused(payload, param):
    with pytest.raises(ScoringError) as caught:
        read_request(payload)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_empty_fields_of_a_repeated_answer_are_accepted():
    answer = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
    messages = [*HI, answer, *HI]
    prompt = read_request({"messages": messages}).prompts[0]
    assert prompt == [*HI, {"role": "assistant", "content": "Hi"}, *HI]


@pytest.mark.finding(
    24,
    "one request contains thousands of texts, and everybody else gets 429",
    "a request with more than 256 texts is refused",
)
@pytest.mark.parametrize("shape", [lambda texts: {"input_data": texts}, catalog])
def test_the_number_of_texts_is_limited(shape):
    """All texts of a request are answered, even if the client leaves, before others have their turn."""
    assert len(read_request(shape(["x"] * MAX_TEXTS)).prompts) == MAX_TEXTS <= MAX_WAITING
    with pytest.raises(
        ScoringError, match=f"has {MAX_TEXTS + 1} texts; .* up to {MAX_TEXTS}"
    ) as caught:
        read_request(shape(["x"] * (MAX_TEXTS + 1)))
    assert caught.value.status == 400


def test_an_image_is_refused():
    part = {"type": "image_url", "image_url": {"url": "https://example.com"}, "text": "Hi"}
    with pytest.raises(ScoringError, match="array of text parts"):
        read_request({"messages": [{"role": "user", "content": [part]}]})


def test_the_values_reach_the_generation_and_the_request():
    settings = {
        "top_k": 5, "repetition_penalty": 1.5, "frequency_penalty": 1, "presence_penalty": -1,
        "logit_bias": {"7": -100}, "logprobs": True, "top_logprobs": 3, "n": 2, "model": "phi3",
    }  # fmt: skip
    request = read_request({"messages": HI, **settings})
    assert request.params == GenerationParams(
        max_new_tokens=None,
        top_k=5,
        repetition_penalty=1.5,
        frequency_penalty=1,
        presence_penalty=-1,
        logit_bias={7: -100.0},
        logprobs=3,
    )
    assert (request.choices, request.model) == (2, "phi3")
    assert read_request({"messages": HI, "top_k": -1}).params.top_k == 0


@pytest.mark.parametrize(
    ("parameters", "sampled", "temperature"),
    [
        ({}, False, 1.0),
        ({"temperature": 0}, False, 1.0),
        ({"temperature": 0.5}, True, 0.5),
        ({"temperature": 0.5, "do_sample": False}, False, 0.5),
        ({"temperature": 0, "do_sample": True}, False, 1.0),
        ({"do_sample": True}, True, 1.0),
        ({"do_sample": False}, False, 1.0),
        ({"top_p": 0.5}, False, 1.0),
    ],
)
def test_decoding_is_greedy_unless_the_request_asks_for_sampling(parameters, sampled, temperature):
    params = read_request(catalog(HI, **parameters)).params
    assert (params.do_sample, params.temperature) == (sampled, temperature)


def test_each_contract_has_its_parameters_in_its_own_place():
    for payload in (
        {"input_data": ["a"], "params": {"max_new_tokens": 3}},
        catalog(HI, max_new_tokens=3),
        {"messages": HI, "max_new_tokens": 3},
    ):
        assert read_request(payload).params.max_new_tokens == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "text", "input_string", "parameters", "stream", "stop"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"input_data": JSON, "messages": JSON, "params": JSON, "max_tokens": JSON, "stop": JSON}
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(JSON | BODIES)
def test_no_body_raises_anything_but_a_scoring_error(body):
    try:
        read_request(body)
    except ScoringError as error:
        assert error.status == 400
