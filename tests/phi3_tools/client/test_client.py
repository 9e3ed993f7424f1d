"""The client against a scripted endpoint: complete answers, threads, tasks."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_tools import (
    AuthenticationError,
    ConfigError,
    EntraAuth,
    Params,
    Phi3Client,
    PromptTooLongError,
    Settings,
    Usage,
)

HANG_S = 30


USAGE = {"prompt_tokens": 5, "completion_tokens": 2}


REQUEST_ID = {"x-ms-request-id": "r-1"}


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


# -- complete answers ------------------------------------------------------------------------------


def test_a_reply(server, connect):
    answer = {"output": "Bill", "finish_reason": "stop", "model": "tiny", "usage": USAGE}
    server.json(answer, headers=REQUEST_ID)
    reply = connect(server).chat("Who?", Params(max_new_tokens=9))
    assert (reply.text, reply.finish_reason, reply.model) == ("Bill", "stop", "tiny")
    assert reply.usage == Usage(5, 2)
    assert (reply.contract, reply.attempts, reply.request_id) == ("chat", 1, "r-1")
    assert reply.latency_s > 0
    assert reply.raw == answer
    assert server.bodies() == [
        {
            "input_data": {
                "input_string": [{"role": "user", "content": "Who?"}],
                "parameters": {"max_new_tokens": 9},
            }
        }
    ]


def test_mlflow_echo_is_cut(server, connect):
    server.json(["<|user|>\nWho?<|end|>\n<|assistant|>\nBill"])
    assert connect(server, contract="mlflow").chat("Who?").text == "Bill"


def test_an_mlflow_model_that_applies_the_template_itself(server, connect):
    """The contract is detected as usual; an echo contains the complete prompt."""

    def wrapped(x):
        text = x.request.json["input_data"]
        if isinstance(text, dict):
            return x.respond(b'{"message": "not a list"}', 400)
        return x.respond(json.dumps([f"<|user|>\n{text[0]}<|end|>\n<|assistant|>\nBill"]).encode())

    server.play(wrapped)
    client = connect(server, template="server")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert client.chat(messages).text == "Bill"
    assert client.contract == "mlflow"
    assert {
        "input_data": ["Be brief.\n\nWho?"],
        "params": {"return_full_text": False},
    } in server.bodies()
    assert client.chat("Who?").text == "Bill"


def test_entra(server):
    class Credential:
        def get_token(self, scope):
            return type("Token", (), {"token": "t0ken", "expires_on": time.time() + 3600})

    server.json({"output": "x"})
    with Phi3Client(Settings(server.url, EntraAuth("scope", Credential()))) as client:
        client.chat("Hi")
    assert server.requests[0].headers["authorization"] == "Bearer t0ken"


def test_wrong_messages_are_not_sent(server, connect):
    client = connect(server)
    for ask in (client.chat, client.stream):
        with pytest.raises(ConfigError, match="the list of messages is empty"):
            ask([])
        with pytest.raises(PromptTooLongError):
            ask("x" * 100_000, context_window=4096)
    assert server.requests == []


def test_a_context_window_leaves_out_old_turns(server, connect):
    server.json({"output": "x"})
    chat = [
        {"role": "user", "content": "old " * 200},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "new"},
    ]
    client = connect(server)
    client.chat(chat, Params(max_new_tokens=100), context_window=200)
    client.chat(chat)
    sent = [len(body["input_data"]["input_string"]) for body in server.bodies()]
    assert sent == [1, 3]


# -- threads and tasks -----------------------------------------------------------------------------


def meeting(parties):
    """Return an answer that waits until this many requests have arrived."""
    barrier = threading.Barrier(parties)

    def answer(x):
        barrier.wait(HANG_S)
        question = x.request.json["input_data"]["input_string"][0]["content"]
        x.respond(f'{{"output": "{question}"}}'.encode())

    return answer


def test_64_async_calls_are_in_flight_at_once(server, connect):
    server.play(meeting(64))
    client = connect(server, contract="chat")

    async def ask():
        return await asyncio.gather(*(client.achat(str(n)) for n in range(64)))

    assert [reply.text for reply in asyncio.run(ask())] == [str(n) for n in range(64)]


def test_threads_share_one_client(server, connect):
    server.play(meeting(16))
    client = connect(server, contract="chat")
    with ThreadPoolExecutor(16) as pool:
        texts = pool.map(lambda n: client.chat(str(n)).text, range(64))
    assert list(texts) == [str(n) for n in range(64)]
    assert server.connections == 16


def test_async_errors_are_the_same(server, connect):
    server.json({"error": "no"}, 401)
    client = connect(server)
    with pytest.raises(AuthenticationError):
        asyncio.run(client.achat("Hi"))
    with pytest.raises(AuthenticationError):
        asyncio.run(anext(client.astream("Hi")))


def test_async_pieces(server, connect):
    server.events(delta("Bill"), delta(" Gates"), END, "[DONE]")
    client = connect(server, contract="openai")

    async def ask():
        return [piece async for piece in client.astream("Who?", Params(max_new_tokens=9))]

    assert asyncio.run(ask()) == ["Bill", " Gates"]
    assert server.bodies()[0]["max_tokens"] == 9


def test_the_event_loop_is_free_meanwhile(server, connect):
    go_on = threading.Event()

    def answer(x):
        assert go_on.wait(HANG_S)
        x.respond(b'{"output": "x"}')

    server.play(answer)
    client = connect(server)

    async def ask():
        call = asyncio.create_task(client.achat("Hi"))
        while not server.requests:
            await asyncio.sleep(0.01)
        go_on.set()
        return await call

    assert asyncio.run(ask()).text == "x"
