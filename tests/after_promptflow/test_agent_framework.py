"""`Phi3ChatClient` under Agent Framework: whole and streamed answers, usage, options, cancellation."""

import asyncio
import runpy
import sys
from pathlib import Path

import pytest
from agent_framework import BaseChatClient, ChatMiddleware, Content, Message
from pydantic import BaseModel

from echo_endpoint import KEY, echo_endpoint
from phi3_tools import ConfigError, Params, Phi3Client, StatusError
from phi3_tools.agent_framework import Phi3ChatClient
from scripted_endpoint import scripted_endpoint

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "agent-framework" / "agent.py"
WEATHER = {"type": "function", "function": {"name": "weather"}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Vienna"}}</tool_call>'
WAIT_S = 20  # a limit for what must not hang


@pytest.fixture(scope="module")
def echo():
    with echo_endpoint() as server:
        server.may_finish.set()
        yield server


@pytest.fixture
def scripted():
    with scripted_endpoint() as server:
        yield server


def chat_client(server, **settings):
    client = Phi3Client.from_connection({"endpoint": server.url, "key": KEY, "contract": "chat"})
    return Phi3ChatClient(client, **settings)


def streamed(agent, question):
    async def read():
        stream = agent.run(question, stream=True)
        return [update.text async for update in stream], await stream.get_final_response()

    return asyncio.run(read())


def test_an_agent_gets_the_answer_with_its_usage(echo):
    agent = chat_client(echo).as_agent(instructions="Be brief.")
    options = {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "stop": ["."], "seed": 7}
    response = asyncio.run(agent.run("Who are you?", options=options))
    assert response.text == "Who are you?"
    assert response.usage_details == {
        "input_token_count": 11,
        "output_token_count": 7,
        "total_token_count": 18,
    }
    request = echo.requests[-1]["input_data"]
    assert request["input_string"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
    ]
    parameters = request["parameters"]
    assert (parameters["max_new_tokens"], parameters["seed"]) == (5, 7)


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_a_temperature_is_sent_as_by_the_client_itself(echo, temperature):
    client = chat_client(echo)
    client.client.chat("Hi", Params(temperature=temperature))
    asyncio.run(
        client.get_response([Message("user", ["Hi"])], options={"temperature": temperature})
    )
    assert echo.requests[-1] == echo.requests[-2]
    assert echo.requests[-1]["input_data"]["parameters"]


def test_a_streamed_answer_has_the_same_text_usage_and_finish_reason(scripted):
    agent = chat_client(scripted).as_agent()
    pieces, response = streamed(agent, "one two three")
    assert [piece for piece in pieces if piece] == ["one ", "two ", "three"]
    assert response.text == "one two three"
    assert response.usage_details["output_token_count"] == 3
    assert response.finish_reason == "stop"


def test_a_session_sends_the_whole_conversation(echo):
    agent = chat_client(echo).as_agent()

    async def talk():
        session = agent.create_session()
        for question in ("first", "second"):
            await agent.run(question, session=session)

    asyncio.run(talk())
    contents = [m["content"] for m in echo.requests[-1]["input_data"]["input_string"]]
    assert contents == ["first", "first", "second"]


def test_the_context_window_leaves_out_the_oldest_turns(echo):
    client = chat_client(echo, context_window=64)
    messages = [
        Message("user", ["word " * 40]),
        Message("assistant", ["yes"]),
        Message("user", ["Hi"]),
    ]
    asyncio.run(client.get_response(messages, options={"max_tokens": 8}))
    assert [m["content"] for m in echo.requests[-1]["input_data"]["input_string"]] == ["Hi"]


def test_chat_middleware_runs(echo):
    questions = []

    class Notes(ChatMiddleware):
        async def process(self, context, call_next):
            questions.append(context.messages[-1].text)
            await call_next()

    agent = chat_client(echo).as_agent(middleware=[Notes()])
    assert asyncio.run(agent.run("Hello")).text == "Hello"
    assert questions == ["Hello"]


def test_leaving_a_stream_early_closes_the_connection(scripted):
    async def leave():
        async for update in chat_client(scripted).as_agent().run("endless", stream=True):
            if update.text:
                break

    asyncio.run(asyncio.wait_for(leave(), WAIT_S))
    assert scripted.gone.wait(WAIT_S)


def test_cancelling_the_task_ends_the_call(scripted):
    scripted.held.add("Hi")

    async def cancel():
        task = asyncio.create_task(chat_client(scripted).as_agent().run("Hi"))
        while not scripted.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancel(), WAIT_S))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tools": [{"type": "function"}]}, r"tools\[0\] must have the form"),
        ({"response_format": {"type": "objekt"}}, "response_format is not a valid JSON schema"),
        ({"tools": [WEATHER], "allow_multiple_tool_calls": False}, "allow_multiple_tool_calls"),
        ({"conversation_id": "x"}, "`conversation_id` is not supported"),
        ({"model": "gpt-4"}, "'gpt-4', but the connection's model is None"),
        ({"max_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(echo, options, text):
    with pytest.raises(ConfigError, match=text):
        asyncio.run(chat_client(echo).get_response([Message("user", ["Hi"])], options=options))


@pytest.mark.parametrize(
    ("allowed", "extra"), [(True, {}), (None, {}), (False, {"parallel_tool_calls": False})]
)
def test_one_call_at_most_is_requested_from_the_endpoint(monkeypatch, allowed, extra):
    async def achat(self, chat, params, *, context_window):
        assert params.extra == extra
        raise ConnectionError("it was called")

    monkeypatch.setattr(Phi3Client, "achat", achat)
    client = Phi3Client.from_connection(
        {"endpoint": "http://127.0.0.1:9/v1", "key": KEY, "contract": "openai"}
    )
    options = {"tools": [WEATHER], "allow_multiple_tool_calls": allowed}
    with pytest.raises(ConnectionError, match="it was called"):
        asyncio.run(Phi3ChatClient(client).get_response([Message("user", ["Hi"])], options=options))


@pytest.mark.parametrize(
    ("other", "kind"),
    [("so", "text"), (Content.from_function_call("c2", "weather"), "calls")],
)
def test_a_result_of_a_function_with_something_else_is_refused(echo, other, kind):
    message = Message("tool", [Content.from_function_result("c1", result="sunny"), other])
    with pytest.raises(ConfigError, match=f"results of functions together with {kind}"):
        asyncio.run(chat_client(echo).get_response([message]))


def test_content_other_than_text_is_refused(echo):
    image = Message("user", [Content.from_uri("http://x/y.png", media_type="image/png")])
    with pytest.raises(ConfigError, match=r"message 1 \(user\) contains uri, not text"):
        asyncio.run(chat_client(echo).get_response([image]))


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_keeps_its_class(echo, stream):
    agent = chat_client(echo).as_agent()
    with pytest.raises(StatusError, match="told to fail"):
        if stream:
            streamed(agent, "fail")
        else:
            asyncio.run(agent.run("fail"))


def test_it_is_a_chat_client_of_the_framework(echo):
    client = chat_client(echo)
    assert isinstance(client, BaseChatClient)
    assert client.service_url() == echo.url


def test_the_example_agent_answers_in_one_conversation(scripted, monkeypatch, capsys):
    monkeypatch.setenv("PHI3_ENDPOINT", scripted.url)
    monkeypatch.setenv("PHI3_KEY", KEY)
    monkeypatch.setenv("PHI3_CONTRACT", "chat")
    monkeypatch.setattr(sys, "argv", ["agent.py", "Who are you?", "And now?"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == "> Who are you?\nWho are you?\n> And now?\nAnd now?\n"
    assert len(scripted.messages()) == 4


# -- functions and schemas -------------------------------------------------------------------------


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    city: str


def test_an_agent_calls_its_functions(scripted):
    result = "<tool_response>\nsunny in Vienna\n</tool_response>"
    scripted.answers |= {"Weather?": f"One moment. {CALL}", result: "It is sunny."}
    agent = chat_client(scripted).as_agent(tools=[weather])
    response = asyncio.run(agent.run("Weather?"))
    assert response.text.endswith("It is sunny.")
    assert "Return the weather of a city." in scripted.messages()[0]
    assert scripted.messages()[-2:] == [f"One moment. \n{CALL}".replace(" \n", "\n"), result]


def test_a_streaming_agent_calls_its_functions(scripted):
    result = "<tool_response>\nsunny in Vienna\n</tool_response>"
    scripted.answers |= {"Weather?": CALL, result: "It is sunny."}
    pieces, response = streamed(chat_client(scripted).as_agent(tools=[weather]), "Weather?")
    assert "".join(pieces) == response.text == "It is sunny."
    assert "tool_call" not in "".join(pieces)


def test_a_required_function_is_named_in_the_request(scripted):
    scripted.answers["Weather?"] = CALL
    choice = {"mode": "required", "required_function_name": "weather"}
    client = chat_client(scripted, function_invocation_configuration={"enabled": False})
    response = asyncio.run(
        client.get_response(
            [Message("user", ["Weather?"])], options={"tools": [WEATHER], "tool_choice": choice}
        )
    )
    (call,) = [content for content in response.messages[0].contents if content.type != "text"]
    assert (call.name, call.parse_arguments()) == ("weather", {"city": "Vienna"})
    assert response.finish_reason == "tool_calls"
    assert "Call the tool weather." in scripted.messages()[0]


def test_an_answer_by_a_class_is_the_value_of_the_response(scripted):
    scripted.answers["Where?"] = '{"city": "Vienna"}'
    agent = chat_client(scripted).as_agent()
    response = asyncio.run(agent.run("Where?", options={"response_format": City}))
    assert response.value == City(city="Vienna")


def test_a_tool_of_a_service_is_refused(echo):
    options = {"tools": [object()]}
    with pytest.raises(ConfigError, match="contains object, which is not a function"):
        asyncio.run(
            Phi3ChatClient._inner_get_response(
                chat_client(echo), messages=[Message("user", ["Hi"])], stream=False, options=options
            )
        )
