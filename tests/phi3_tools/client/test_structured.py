"""Answers by a schema and tool calls, against a scripted endpoint in each contract."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from phi3_tools import InvalidAnswerError, Params, PromptTooLongError, Reply, ToolCall, fit
from phi3_tools.client import observe_calls
from phi3_tools.client.events import CallObserver
from phi3_tools.client.structured import (
    PROMPT,
    plain_messages,
    read_structure,
    repair_messages,
)
from structured_calls import CALL, CALL_TEXT, GOOD, QUESTION, SCHEMA, USAGE, WEATHER, City, delta

ENCODED = {
    "chat": lambda text: {"output": text, "usage": USAGE},
    "mlflow": lambda text: [text],
}


def openai_answer(text=None, *calls, reason="stop"):
    message = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [call.as_dict() for call in calls]
        reason = "tool_calls"
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": USAGE}


@pytest.fixture
def openai(server, connect):
    return connect(server, contract="openai")


def sent_text(body):
    """Return the texts of a request in any contract."""
    return json.dumps(body, ensure_ascii=False)


# -- schemas ---------------------------------------------------------------------------------------


def test_openai_sends_the_schema_in_the_request(server, openai):
    server.json(openai_answer(GOOD))
    reply = openai.chat("Where?", Params(response_format=SCHEMA))
    assert reply.parsed == {"city": "Vienna", "people": 2000000}
    assert (reply.schema_in, reply.repairs, reply.text) == ("request", 0, GOOD)
    (body,) = server.bodies()
    assert body["messages"] == [{"role": "user", "content": "Where?"}]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize("contract", ["chat", "mlflow"])
def test_other_contracts_get_the_schema_in_the_prompt(server, connect, contract):
    server.json(ENCODED[contract](f"Sure:\n```json\n{GOOD}\n```"))
    reply = connect(server, contract=contract).chat("Where?", Params(response_format=City))
    assert reply.parsed == City(city="Vienna", people=2000000)
    assert reply.schema_in == "prompt"
    (body,) = server.bodies()
    assert "response_format" not in sent_text(body)
    assert "Answer only with JSON that fits this JSON schema" in sent_text(body)


def test_the_schema_follows_the_system_message(server, connect):
    server.json({"output": "{}"})
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    connect(server, contract="chat").chat(chat, Params(response_format="json_object"))
    system, user = server.bodies()[0]["input_data"]["input_string"]
    assert system["content"].startswith("Be brief.\n\nAnswer only with a JSON object")
    assert user == chat[1]


def test_without_a_schema_nothing_is_parsed(server, openai):
    server.json(openai_answer(GOOD))
    reply = openai.chat("Where?")
    assert (reply.parsed, reply.schema_in, reply.repairs) == (None, None, 0)
    assert set(server.bodies()[0]) == {"messages"}


@pytest.mark.parametrize("contract", ["openai", "chat"])
def test_a_wrong_answer_is_repaired_once(server, connect, contract):
    encode = openai_answer if contract == "openai" else ENCODED[contract]
    server.json(encode('{"city": "Vienna"}'))
    server.json(encode(GOOD))
    replies = []

    class Observer(CallObserver):
        def on_answered(self, reply):
            replies.append(reply)

    with observe_calls(Observer()):
        reply = connect(server, contract=contract).chat("Where?", Params(response_format=SCHEMA))
    assert reply.parsed["people"] == 2000000
    assert (reply.repairs, reply.attempts, reply.usage.total_tokens) == (1, 2, 30)
    assert len(replies) == 2
    body = server.bodies()[1]
    messages = body["messages"] if contract == "openai" else body["input_data"]["input_string"]
    assert messages[-2] == {"role": "assistant", "content": '{"city": "Vienna"}'}
    assert '"people" is a required property' in messages[-1]["content"]


def test_after_one_repair_the_error_has_the_text(server, openai):
    server.json(openai_answer("I do not know."))
    with pytest.raises(InvalidAnswerError, match="the answer is not JSON") as caught:
        openai.chat("Where?", Params(response_format=SCHEMA))
    assert len(server.requests) == 2
    assert caught.value.text == "I do not know."
    assert caught.value.reply.repairs == 1


def test_an_answer_that_was_cut_off_is_not_repaired(server, openai):
    server.json(openai_answer('{"city": "Vie', reason="length"))
    with pytest.raises(InvalidAnswerError, match=r"reached its limit of tokens.*max_new_tokens"):
        openai.chat("Where?", Params(response_format=SCHEMA))
    assert len(server.requests) == 1


def test_an_async_call_is_parsed(server, openai):
    server.json(openai_answer(GOOD))
    reply = asyncio.run(openai.achat("Where?", Params(response_format=City)))
    assert reply.parsed.city == "Vienna"


def test_a_repair_that_does_not_fit_the_window_is_left_out(server, connect):
    server.json({"output": "x" * 20_000})
    client = connect(server, contract="chat")
    with pytest.raises(InvalidAnswerError):
        client.chat("Where?", Params(response_format=SCHEMA), context_window=1000)
    assert len(server.requests) == 1


# -- tool calls ------------------------------------------------------------------------------------


def test_openai_sends_tools_and_returns_calls(server, openai):
    server.json(openai_answer(None, CALL)).json(openai_answer("It is sunny."))
    choice = {"type": "function", "function": {"name": "weather"}}
    reply = openai.chat(QUESTION, Params(tools=[WEATHER], tool_choice=choice))
    assert reply.tool_calls == (CALL,)
    assert (reply.text, reply.finish_reason, reply.schema_in) == ("", "tool_calls", "request")
    body = server.bodies()[0]
    assert (body["tools"], body["tool_choice"]) == ([WEATHER], choice)
    chat = [{"role": "user", "content": QUESTION}, reply.message]
    chat.append({"role": "tool", "tool_call_id": CALL.id, "content": "sunny"})
    assert openai.chat(chat, Params(tools=[WEATHER])).text == "It is sunny."
    assert server.bodies()[1]["messages"] == chat


@pytest.mark.parametrize("contract", ["chat", "mlflow"])
def test_other_contracts_call_tools_in_text(server, connect, contract):
    client = connect(server, contract=contract)
    server.json(ENCODED[contract](f"One moment. {CALL_TEXT}"))
    server.json(ENCODED[contract]("It is sunny."))
    reply = client.chat(QUESTION, Params(tools=[WEATHER], tool_choice="required"))
    assert [(c.name, c.arguments) for c in reply.tool_calls] == [("weather", {"city": "Vienna"})]
    assert (reply.text, reply.finish_reason) == ("One moment.", "tool_calls")
    first = sent_text(server.bodies()[0])
    assert "Return the weather of a city." in first and "Call at least one tool." in first
    chat = [{"role": "user", "content": QUESTION}, reply.message]
    chat.append({"role": "tool", "tool_call_id": reply.tool_calls[0].id, "content": "sunny"})
    assert client.chat(chat).text == "It is sunny."  # the tools are not needed to read the history
    second = sent_text(server.bodies()[1])
    assert "<tool_response>" in second and "sunny" in second and "tool_call_id" not in second


@pytest.mark.parametrize("more", [{}, {"response_format": SCHEMA}])
def test_a_call_is_refused_if_the_choice_is_none(server, openai, more):
    server.json(openai_answer(None, CALL))
    with pytest.raises(InvalidAnswerError, match="it calls a tool, but tool_choice is none"):
        openai.chat(QUESTION, Params(tools=[WEATHER], tool_choice="none", **more))
    assert len(server.requests) == 2


def test_calls_of_other_tools_are_refused_if_a_tool_is_named(server, openai):
    news = {"type": "function", "function": {"name": "news"}}
    server.json(openai_answer(None, CALL, ToolCall("b", "news", "{}")))
    choice = {"type": "function", "function": {"name": "weather"}}
    with pytest.raises(InvalidAnswerError, match="it calls another tool than weather"):
        openai.chat(QUESTION, Params(tools=[WEATHER, news], tool_choice=choice))


def test_no_tools_are_offered_if_the_choice_is_none(server, connect):
    server.json({"output": CALL_TEXT})
    params = Params(tools=[WEATHER], tool_choice="none")
    reply = connect(server, contract="chat").chat(QUESTION, params)
    assert (reply.text, reply.tool_calls) == (CALL_TEXT, ())
    assert "weather" not in sent_text(server.bodies()[0]).replace(QUESTION, "")


@pytest.mark.parametrize(
    ("calls", "choice", "problem"),
    [
        ([ToolCall("a", "news", "{}")], "auto", "it calls 'news', but the tools are: weather"),
        ([ToolCall("a", "weather", "{}")], "auto", 'weather: "city" is a required property'),
        ([ToolCall("a", "weather", "[")], "auto", "the arguments of weather: not JSON"),
        ([], "required", "it calls no tool, but a call is required"),
        (
            [],
            {"type": "function", "function": {"name": "weather"}},
            "it does not call weather, which is required",
        ),
    ],
)
def test_a_wrong_call_is_repaired(server, openai, calls, choice, problem):
    server.json(openai_answer("" if not calls else None, *calls))
    server.json(openai_answer(None, CALL))
    reply = openai.chat(QUESTION, Params(tools=[WEATHER], tool_choice=choice))
    assert reply.tool_calls == (CALL,) and reply.repairs == 1
    assert problem in server.bodies()[1]["messages"][-1]["content"]


@pytest.mark.parametrize("mode", ["chat", "stream"])
@pytest.mark.parametrize(
    "write",
    [
        lambda key: {"tool": key},
        lambda key: {"tool": "x" * 70 + key},  # the text is shortened inside the key
        lambda key: {"arguments": json.dumps({"city": [key]})},
        lambda key: {"arguments": json.dumps({"city": ["x" * 184 + key]})},
        lambda key: {"arguments": json.dumps({"city": [key.replace("-", "\\u002d")]})},
        lambda key: {"text": json.dumps(key)},
        lambda key: {"text": json.dumps({"city": "a", "people": key.replace("-", "%2D")})},
    ],
)
def test_a_key_in_an_answer_is_not_in_the_error(server, connect, write, mode):
    client = connect(server, contract="openai", key="S3cret-Key-ABCD-EFGH-IJKL")
    answer = write("S3cret-Key-ABCD-EFGH-IJKL")
    if "text" in answer:
        params, message = Params(response_format=SCHEMA), {"content": answer["text"]}
    else:
        call = ToolCall("a", answer.get("tool", "weather"), answer.get("arguments", "{}"))
        params, message = Params(tools=[WEATHER]), {"tool_calls": [call.as_dict()]}
    if mode == "chat":
        server.json({"choices": [{"message": message, "finish_reason": "stop"}]})
    else:
        server.events(delta(**message), delta("stop"))
    with pytest.raises(InvalidAnswerError) as caught:
        list(client.stream("Hi", params)) if mode == "stream" else client.chat("Hi", params)
    parts = ("S3cret", "Key", "ABCD", "EFGH", "IJKL")
    assert "…" in caught.value.message
    assert not [part for part in parts if part in str(caught.value)]


def test_calls_that_were_not_requested_are_returned(server, openai):
    server.json(openai_answer(None, CALL))
    assert openai.chat(QUESTION).tool_calls == (CALL,)


def test_a_model_may_call_a_tool_or_answer_by_the_schema(server, openai):
    params = Params(tools=[WEATHER], response_format=SCHEMA)
    server.json(openai_answer(None, CALL))
    server.json(openai_answer(GOOD))
    assert openai.chat(QUESTION, params).parsed is None
    assert openai.chat(QUESTION, params).parsed["city"] == "Vienna"


# -- the context window ----------------------------------------------------------------------------


def agent_chat(steps, size=200):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "old"}]
    chat += [{"role": "assistant", "content": "x" * size}, {"role": "user", "content": "question"}]
    for number in range(steps):
        call = ToolCall(f"c{number}", "weather", json.dumps({"city": "y" * size}))
        chat.append({"role": "assistant", "content": "", "tool_calls": [call.as_dict()]})
        chat.append({"role": "tool", "tool_call_id": f"c{number}", "content": "z" * size})
    return chat


@pytest.mark.parametrize("window", range(700, 3200, 100))
def test_a_call_and_its_result_are_kept_together(window):
    fitted = fit(agent_chat(5), context_window=window, max_new_tokens=100)
    ids = [call["id"] for m in fitted for call in m.get("tool_calls", [])]
    results = [m["tool_call_id"] for m in fitted if m["role"] == "tool"]
    assert ids == results == [f"c{n}" for n in range(5 - len(ids), 5)] and ids
    questions = [m["content"] for m in fitted if m["role"] == "user"]
    assert questions == (["old", "question"] if "x" * 200 in sent_text(fitted) else ["question"])
    assert len(ids) == 5 or questions == ["question"]


def test_tools_take_room_in_the_window(server, openai):
    long_tool = {"type": "function", "function": {"name": "x", "description": "long " * 9000}}
    with pytest.raises(PromptTooLongError):
        openai.chat(QUESTION, Params(tools=[long_tool]), context_window=1000)


# -- details ---------------------------------------------------------------------------------------


def test_results_of_one_answer_share_a_turn():
    calls = [replace(CALL, id=i).as_dict() for i in "ab"]
    chat = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]
    plain = plain_messages(chat)
    assert [m["role"] for m in plain] == ["user", "assistant", "user"]
    assert plain[1]["content"].count("<tool_call>") == 2


def test_a_repair_contains_the_call_as_text():
    structure = read_structure(Params(tools=[WEATHER]), has_fields=True)
    with pytest.raises(InvalidAnswerError) as caught:
        structure.read(Reply("", tool_calls=(replace(CALL, name="news"),)))
    answer, _ = repair_messages(caught.value)
    assert answer["content"].startswith('<tool_call>{"name": "news"')


def test_parameters_without_a_structure_request_none():
    assert read_structure(Params(), has_fields=True) is None
    assert read_structure(Params(response_format="text"), has_fields=False) is None
    assert (
        read_structure(Params(response_format="json_object"), has_fields=False).schema_in == PROMPT
    )
