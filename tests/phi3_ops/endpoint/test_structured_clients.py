"""Schemas and tool calls between the local endpoint and real clients: openai-python, ours, plain HTTP.

The model is tiny and random, so that only constrained decoding can make its answers valid.
"""

from __future__ import annotations

import json
from typing import Literal

import openai
import pytest
import requests
from pydantic import BaseModel

from phi3_tools import BadRequestError, Params, Phi3Client
from tiny_endpoint import HANG_S, KEY, running

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Vienna", "Graz"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Vienna", "Graz"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
CITIES = ("Vienna", "Graz")
ONE_CALL = {"parallel_tool_calls": False}


class City(BaseModel):
    city: Literal["Vienna", "Graz"]
    sunny: bool


class Sky(BaseModel):  # short, because the tiny model has a context window of 512 tokens
    up: bool


@pytest.fixture(scope="module")
def url(tiny_model_dir):
    with running(tiny_model_dir) as url:
        yield url


@pytest.fixture
def client(url):
    options = {"timeout": HANG_S, "max_retries": 0}
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, **options) as client:
        yield client.chat.completions


@pytest.fixture(params=["/v1", "/score"])
def ours(url, request):
    fields = {"endpoint": url + request.param, "key": KEY, "contract": "openai"}
    with Phi3Client.from_connection(fields) as client:
        yield client


# -- openai-python ---------------------------------------------------------------------------------


def test_openai_gets_an_answer_by_a_schema(client):
    answer = client.create(
        model="tiny-phi3", messages=HI, response_format=JSON_SCHEMA, max_tokens=80
    )
    value = json.loads(answer.choices[0].message.content)
    assert value["city"] in CITIES and isinstance(value["sunny"], bool)


def test_openai_parses_a_class_of_pydantic(client):
    answer = client.parse(model="tiny-phi3", messages=HI, response_format=City, max_tokens=80)
    assert isinstance(answer.choices[0].message.parsed, City)


def test_openai_parses_tool_calls(client):
    answer = client.parse(
        model="tiny-phi3",
        messages=HI,
        tools=[openai.pydantic_function_tool(Sky)],
        tool_choice="required",
        **ONE_CALL,
        max_tokens=90,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Sky)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_openai_sends_the_result_of_a_call(client):
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = client.create(
        model="tiny-phi3", messages=HI, tools=[WEATHER], tool_choice=choice, max_tokens=120
    )
    message = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    chat = [*HI, message, result]
    last = client.create(
        model="tiny-phi3", messages=chat, tools=[WEATHER], tool_choice="none", max_tokens=8
    )
    assert last.choices[0].message.tool_calls is None


def test_openais_streaming_helper_parses_the_answer(client):
    with client.stream(
        model="tiny-phi3", messages=HI, response_format=City, max_tokens=80
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert {"content.delta", "content.done"} <= kinds
    assert isinstance(answer.choices[0].message.parsed, City)


def test_openais_streaming_helper_puts_calls_together(client):
    tool = openai.pydantic_function_tool(Sky)
    with client.stream(
        model="tiny-phi3",
        messages=HI,
        tools=[tool],
        tool_choice="required",
        **ONE_CALL,
        max_tokens=90,
    ) as stream:
        done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
        answer = stream.get_final_completion()
    assert done and isinstance(done[0].parsed_arguments, Sky)
    assert answer.choices[0].message.tool_calls[0].function.name == "Sky"


def test_a_wrong_schema_is_a_400_that_names_the_keyword(client):
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}
    with pytest.raises(openai.BadRequestError, match="type"):
        client.create(model="tiny-phi3", messages=HI, response_format=wrong)


# -- our client ------------------------------------------------------------------------------------


def test_our_client_gets_parsed_answers(ours):
    reply = ours.chat("Hi", Params(response_format=City, max_new_tokens=80))
    assert isinstance(reply.parsed, City)
    assert (reply.schema_in, reply.repairs) == ("request", 0)
    reply = ours.chat("Hi", Params(response_format=SCHEMA, max_new_tokens=80, temperature=1))
    assert reply.parsed["city"] in CITIES


def test_our_client_gets_streamed_answers_and_calls(ours):
    stream = ours.stream("Hi", Params(response_format=City, max_new_tokens=80))
    assert json.loads("".join(stream)) == stream.reply.parsed.model_dump()
    params = Params(tools=[WEATHER], tool_choice="required", max_new_tokens=120, extra=ONE_CALL)
    stream = ours.stream("Hi", params)
    list(stream)
    assert {call.name for call in stream.reply.tool_calls} == {"weather"}


def test_our_client_sends_results_of_calls(ours):
    params = Params(tools=[WEATHER], tool_choice="required", max_new_tokens=120, extra=ONE_CALL)
    reply = ours.chat(HI, params)
    assert all(call.arguments["city"] in CITIES for call in reply.tool_calls)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in reply.tool_calls
    ]
    last = ours.chat([*HI, reply.message, *results], Params(max_new_tokens=8))
    assert last.tool_calls == ()


def test_a_pattern_that_the_endpoint_refuses_names_the_field(ours):
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "ipv9"}}}
    try:
        ours.chat("Hi", Params(response_format=schema, max_new_tokens=5))
    except BadRequestError as error:
        assert "format" in str(error)
    except Exception as error:  # an endpoint may ignore unknown formats; then the answer is cut off
        assert "limit of tokens" in str(error)


# -- plain HTTP, as promptfoo's HTTP provider sends it ----------------------------------------------


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/score"])
def test_an_http_provider_reads_the_answer_from_the_json(url, route):
    body = {"messages": HI, "response_format": JSON_SCHEMA, "max_tokens": 80}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    response = requests.post(url + route, headers=headers, data=json.dumps(body), timeout=HANG_S)
    response.raise_for_status()
    # transformResponse: json.choices[0].message.content
    assert json.loads(response.json()["choices"][0]["message"]["content"])["city"] in CITIES
