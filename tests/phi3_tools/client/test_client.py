"""The client against a scripted endpoint: contracts, attempts, streams, threads."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_tools import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ConfigError,
    ConnectionLostError,
    EndpointTimeoutError,
    EntraAuth,
    Limits,
    Params,
    Phi3Client,
    PromptTooLongError,
    RateLimitedError,
    ScoringFailedError,
    ServerError,
    Settings,
    Usage,
)
from phi3_tools.client.calls import _json

HANG_S = 30
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
REQUEST_ID = {"x-ms-request-id": "r-1"}
REFUSED = {"error": {"message": "unknown input"}}


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


# -- whole answers ---------------------------------------------------------------------------------


def test_a_reply(server, connect):
    answer = {"output": "Bill", "finish_reason": "stop", "model": "tiny", "usage": USAGE}
    server.json(answer, headers=REQUEST_ID)
    reply = connect(server).chat("Who?", Params(max_new_tokens=9))
    assert (reply.text, reply.finish_reason, reply.model) == ("Bill", "stop", "tiny")
    assert reply.usage == Usage(5, 2)
    assert (reply.contract, reply.attempts, reply.request_id) == ("chat", 1, "r-1")
    assert 0 < reply.latency_s < HANG_S
    assert reply.raw == answer
    assert server.bodies() == [
        {
            "input_data": {
                "input_string": [{"role": "user", "content": "Who?"}],
                "parameters": {"max_new_tokens": 9},
            }
        }
    ]


def test_headers(server, connect, key):
    server.json({"output": "x"})
    connect(server, deployment="blue").chat("Hi")
    connect(server).chat("Hi")
    blue, any_deployment = (request.headers for request in server.requests)
    assert blue["azureml-model-deployment"] == "blue"
    assert "azureml-model-deployment" not in any_deployment
    assert blue["authorization"] == f"Bearer {key}"
    assert blue["accept"] == "application/json"


def test_openai(server, connect):
    server.json({"choices": [{"message": {"content": "Bill"}}]})
    client = connect(server.url.replace("/score", "/v1"), model="phi3")
    assert client.chat("Who?").model == "phi3"
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.bodies()[0]["model"] == "phi3"


def test_mlflow_echo_is_cut(server, connect):
    server.json(["<|user|>\nWho?<|end|>\n<|assistant|>\nBill"])
    assert connect(server, contract="mlflow").chat("Who?").text == "Bill"


def test_mlflow_that_applies_the_template_itself(server, connect):
    """Found out like any other; an echo is that of the whole prompt."""

    def wrapped(x):
        given = x.request.json["input_data"]
        if isinstance(given, dict):
            return x.whole(b'{"message": "not a list"}', 400)
        return x.whole(json.dumps([f"<|user|>\n{given[0]}<|end|>\n<|assistant|>\nBill"]).encode())

    server.play(wrapped)
    client = connect(server, template="server")
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert client.chat(said).text == "Bill"
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


def test_usage_is_counted_where_the_endpoint_does_not_tell(server, connect, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    server.json({"output": "one two"}).json({"output": "one", "usage": USAGE})
    client = connect(server, tokenizer=str(tmp_path / "t.json"))
    assert client.chat("one two one").usage == Usage(4 + 5 + 3, 2, counted=True)
    assert client.chat("one").usage == Usage(5, 2)
    assert connect(server).chat("one").usage == Usage(5, 2)


# -- which contract --------------------------------------------------------------------------------


def test_chat_is_found_and_remembered(server, connect, caplog):
    server.json({"output": "x"})
    client = connect(server)
    assert client.contract == "auto"
    with caplog.at_level(logging.INFO, "phi3_tools"):
        client.chat("Hi")
        client.chat("Hi")
    assert client.contract == "chat"
    assert [r.getMessage() for r in caplog.records] == [f"{server.url} speaks the chat contract"]
    assert len(server.requests) == 2


def test_an_answer_in_another_contract_shows_it(server, connect):
    """An MLflow endpoint may take the request and misread it: its list gives it away."""
    server.json(["misread"]).json(["Bill"])
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "mlflow"
    client.chat("Who?")
    kinds = [type(body["input_data"]).__name__ for body in server.bodies()]
    assert kinds == ["dict", "list", "list"]


def only_lists(x):
    if isinstance(x.request.json["input_data"], list):
        return x.whole(b'["Bill"]')
    return x.whole(b'{"message": "not a list"}', 424, {"ms-azureml-model-error-statuscode": "400"})


def test_a_refusal_leads_to_the_next_contract(server, connect):
    server.play(only_lists)
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "mlflow"
    before = len(server.requests)
    client.chat("Who?")
    assert len(server.requests) == before + 1


def test_a_stumble_is_not_taken_for_a_refusal(server, connect):
    server.json(REFUSED, 400).json(["Bill"]).json({"output": "Bill"})
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "auto"
    client.chat("Who?")
    assert client.contract == "chat"


def test_where_no_contract_fits_the_likeliest_says_why(server, connect):
    server.json(REFUSED, 400, REQUEST_ID).json({"error": "list"}, 400)
    with pytest.raises(BadRequestError, match=r"unknown input \[request r-1\]"):
        connect(server).chat("Hi")


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (500, ServerError)])
def test_what_has_nothing_to_do_with_the_contract_ends_the_search(
    server, connect, waits, status, error
):
    server.json({}, status)
    with pytest.raises(error):
        connect(server).chat("Hi")
    assert all(isinstance(body["input_data"], dict) for body in server.bodies())


# -- attempts --------------------------------------------------------------------------------------


def test_a_passing_fault_is_survived(server, connect, waits):
    server.json({}, 503).json({}, 429, {"retry-after": "3"}).json({"output": "x"})
    assert connect(server).chat("Hi").attempts == 3
    assert len(waits) == 2
    assert 0.375 <= waits[0] <= 0.625
    assert 3 <= waits[1] <= 3.75


def test_a_lasting_fault_is_raised(server, connect, waits):
    server.json({"error": {"message": "busy"}}, 429, REQUEST_ID)
    with pytest.raises(RateLimitedError, match=r"busy \[request r-1\]. Send fewer"):
        connect(server).chat("Hi")
    assert len(server.requests) == 8
    assert len(waits) == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 302])
def test_what_would_fail_again_is_not_repeated(server, connect, waits, status):
    server.give(status)
    with pytest.raises(Exception, match=str(status)):
        connect(server, contract="chat").chat("Hi")
    assert len(server.requests) == 1
    assert waits == []


def test_attempts_can_be_limited_for_a_connection_and_for_a_call(server, connect, waits):
    server.json({}, 503)
    client = connect(server, max_attempts="2")
    with pytest.raises(ServerError):
        client.chat("Hi")
    assert len(server.requests) == 2
    with pytest.raises(ServerError):
        client.chat("Hi", limits=Limits(max_attempts=1))
    assert len(server.requests) == 3


def test_a_wait_beyond_the_deadline_is_not_begun(server, connect, waits):
    server.json({}, 429, {"retry-after": "50"})
    with pytest.raises(RateLimitedError):
        connect(server, deadline_s="20").chat("Hi")
    assert waits == []


def test_a_lost_connection_is_tried_again(server, connect, waits):
    server.play(lambda x: x.hang_up()).json({"output": "x"})
    assert connect(server).chat("Hi").attempts == 2


def test_a_success_that_is_none_is_tried_again(server, connect, waits):
    server.json({"output": None, "error": {"message": "CUDA"}}).json({}).json({"output": "x"})
    assert connect(server, contract="chat").chat("Hi").attempts == 3


def test_the_deadline_covers_all_attempts(server, connect):
    server.play(lambda x: x.until_client_leaves())
    with pytest.raises(EndpointTimeoutError):
        connect(server, deadline_s="0.5", read_timeout_s="0.2", backoff_first_s="0.01").chat("Hi")
    assert 2 <= len(server.requests) <= 4


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"cut', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_named(server, connect, body):
    server.give(200, body, REQUEST_ID)
    with pytest.raises(BadAnswerError, match="is not JSON.*Check that the connection's") as caught:
        connect(server, contract="chat").chat("Hi")
    assert caught.value.request_id == "r-1"


def test_a_request_id_reaches_errors_in_a_success(server, connect, waits):
    server.json({"error": "engine"}, 200, REQUEST_ID)
    with pytest.raises(ScoringFailedError, match=r"engine \[request r-1\]"):
        connect(server, contract="chat").chat("Hi")


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("ask", ["chat", "stream"])
def test_the_key_is_in_no_error(server, connect, waits, key, status, ask):
    """Not even where the endpoint repeats it."""
    server.json({"error": {"message": f"bad key {key}, really {key}"}}, status)
    client = connect(server, contract="chat")
    with pytest.raises(Exception, match="bad key …, really …") as caught:
        list(getattr(client, ask)("Hi"))
    assert key not in f"{caught.value} {caught.value!r} {caught.value.as_dict()}"
    assert key not in repr(vars(client))


# -- streams ---------------------------------------------------------------------------------------


def test_pieces_come_before_the_end(server, connect):
    go_on = threading.Event()

    def answer(x):
        x.begin_events()
        x.event(delta("Bill"))
        assert go_on.wait(HANG_S)
        x.event(delta(" Gates"))
        x.event(END)
        x.event("[DONE]")
        x.end_chunks()

    server.play(answer)
    stream = connect(server, contract="openai").stream("Who?")
    assert server.requests == []
    assert next(stream) == "Bill"
    assert stream.reply is None
    go_on.set()
    assert list(stream) == [" Gates"]
    assert server.requests[0].headers["accept"].startswith("text/event-stream")


def test_a_stream_ends_in_a_reply(server, connect):
    last = {"choices": [], "usage": USAGE, "model": "tiny"}
    server.events(delta(""), delta("Bill "), delta("Gates"), END, last, "[DONE]")
    with connect(server, contract="openai").stream("Who?") as stream:
        assert list(stream) == ["Bill ", "Gates"]
    reply = stream.reply
    assert (reply.text, reply.finish_reason, reply.model) == ("Bill Gates", "stop", "tiny")
    assert (reply.usage, reply.contract, reply.attempts) == (Usage(5, 2), "openai", 1)


def test_the_chat_contract_streams_where_the_endpoint_does(server, connect):
    server.events({"output": "Bill"}, {"output": "", "finish_reason": "stop"}, "[DONE]")
    client = connect(server)
    assert list(client.stream("Who?")) == ["Bill"]
    assert client.contract == "chat"
    assert server.bodies()[0]["input_data"]["parameters"] == {"stream": True}


def test_a_streams_connection_is_used_again(server, connect):
    server.events(delta("Bill"), END, "[DONE]")
    client = connect(server, contract="openai")
    for _ in range(3):
        assert list(client.stream("Who?")) == ["Bill"]
    assert server.connections == 1


def test_a_stream_that_stays_open_after_its_end_is_closed(server, connect):
    def answer(x):
        x.begin_events()
        x.event(delta("Bill"))
        x.event("[DONE]")
        x.until_client_leaves()

    server.play(answer)
    assert list(connect(server, contract="openai").stream("Who?")) == ["Bill"]
    assert server.left.wait(HANG_S)


@pytest.mark.parametrize("contract", ["chat", "mlflow", "openai", "auto"])
def test_one_piece_where_nothing_streams(server, connect, contract):
    payloads = {
        "mlflow": ["Bill"],
        "openai": {"choices": [{"message": {"content": "Bill"}}]},
    }
    server.json(payloads.get(contract, {"output": "Bill"}))
    stream = connect(server, contract=contract).stream("Who?")
    assert list(stream) == ["Bill"]
    assert stream.reply.text == "Bill"
    assert len(server.requests) == 1


def no_stream(x):
    asked = x.request.json["input_data"]["parameters"]
    return x.whole(b'"unknown"', 400) if "stream" in asked else x.whole(b'{"output": "Bill"}')


def test_an_image_that_refuses_stream_is_asked_without(server, connect):
    server.play(no_stream)
    client = connect(server, contract="chat")
    assert list(client.stream("Who?")) == ["Bill"]
    assert list(client.stream("Who?")) == ["Bill"]
    assert len(server.requests) == 3  # it is remembered


def test_an_image_that_chokes_on_stream_is_asked_without(server, connect):
    server.json({"error": "unexpected keyword stream"}).json({"output": "Bill"})
    client = connect(server, contract="chat")
    stream = client.stream("Who?")
    assert list(stream) == ["Bill"]
    assert stream.reply.attempts == 2


def test_one_that_has_streamed_is_not_asked_without(server, connect, waits):
    server.events({"output": "x"}, "[DONE]").json({}, 400)
    client = connect(server, contract="chat")
    assert list(client.stream("Hi")) == ["x"]
    with pytest.raises(BadRequestError):
        list(client.stream("Hi"))
    assert len(server.requests) == 2


def test_before_the_first_piece_an_attempt_is_repeated(server, connect, waits):
    server.json({}, 503).events(delta(""), cut=True).events(delta("x"), END, "[DONE]")
    stream = connect(server, contract="openai").stream("Hi")
    assert list(stream) == ["x"]
    assert stream.reply.attempts == 3


@pytest.mark.parametrize(
    ("events", "cut", "error", "says"),
    [
        (
            [{"error": {"message": "The engine failed."}}],
            False,
            ScoringFailedError,
            "engine failed",
        ),
        ([], True, ConnectionLostError, "broke before"),
        ([], False, ConnectionLostError, "broke off before its end"),
        (["{cut"], False, BadAnswerError, "not JSON"),
    ],
)
def test_what_goes_wrong_in_the_middle_is_raised(server, connect, waits, events, cut, error, says):
    """And not repeated: what a person has seen is not taken back."""

    def answer(x):
        x.head(
            200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **REQUEST_ID}
        )
        for event in (delta("Bill"), *events):
            x.event(event)
        x.hang_up() if cut else x.end_chunks()

    server.play(answer)
    stream = connect(server, contract="openai").stream("Who?")
    assert next(stream) == "Bill"
    with pytest.raises(error, match=says) as caught:
        next(stream)
    assert caught.value.request_id == "r-1"
    assert stream.reply is None
    assert len(server.requests) == 1
    assert list(stream) == []


def test_a_stream_without_done_ends_with_a_reason(server, connect):
    server.events(delta("Bill"), END)
    assert list(connect(server, contract="openai").stream("Who?")) == ["Bill"]


def test_an_empty_answer_is_one_only_with_a_reason(server, connect):
    server.events(END, "[DONE]").events({"type": "ping"}, "[DONE]")
    client = connect(server, contract="openai")
    assert list(client.stream("Hi")) == []
    with pytest.raises(BadAnswerError, match="ended without an answer"):
        list(client.stream("Hi"))


def endless(x):
    x.begin_events()
    x.event(delta("Bill"))
    x.until_client_leaves()


def test_leaving_the_loop_closes_the_connection(server, connect):
    server.play(endless)
    with connect(server, contract="openai").stream("Who?") as stream:
        for piece in stream:
            assert piece == "Bill"
            break
    assert server.left.wait(HANG_S)
    assert list(stream) == []


def test_a_stream_that_nobody_keeps_is_closed(server, connect):
    server.play(endless)
    assert next(connect(server, contract="openai").stream("Who?")) == "Bill"
    assert server.left.wait(HANG_S)


def test_a_stream_that_was_never_begun_sends_nothing(server, connect):
    with connect(server).stream("Who?"):
        pass
    assert server.requests == []


def test_another_thread_can_close_a_stream(server, connect):
    server.play(endless)
    stream = connect(server, contract="openai").stream("Who?")
    assert next(stream) == "Bill"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: next(stream, None))
        time.sleep(0.05)  # until it waits
        stream.close()
        assert (
            isinstance(waiting.exception(HANG_S), EndpointTimeoutError) or waiting.result() is None
        )
    assert server.left.wait(HANG_S)


def test_the_deadline_ends_a_stream(server, connect):
    def answer(x):
        x.begin_events()
        while True:
            x.event(delta("x"))
            time.sleep(0.01)

    server.play(answer)
    stream = connect(server, contract="openai", deadline_s="0.3").stream("Who?")
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 0.3 s"):
        for piece in stream:
            assert piece == "x"
    assert len(server.requests) == 1


def test_the_deadline_ends_a_stream_that_falls_silent(server, connect):
    server.play(endless)
    stream = connect(server, contract="openai", deadline_s="0.3").stream("Who?")
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 0.3 s"):
        list(stream)


def test_an_oversized_stream_is_ended(server, connect):
    server.events(delta("x" * 2000), END, "[DONE]")
    stream = connect(server, contract="openai", max_answer_bytes="1000").stream("Hi")
    with pytest.raises(BadAnswerError, match="longer than 1000 bytes"):
        list(stream)


# -- threads and tasks -----------------------------------------------------------------------------


def meeting(parties):
    """Answers only once so many requests are there at the same time."""
    barrier = threading.Barrier(parties)

    def answer(x):
        barrier.wait(HANG_S)
        question = x.request.json["input_data"]["input_string"][0]["content"]
        x.whole(f'{{"output": "{question}"}}'.encode())

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
        x.whole(b'{"output": "x"}')

    server.play(answer)
    client = connect(server)

    async def ask():
        call = asyncio.create_task(client.achat("Hi"))
        while not server.requests:
            await asyncio.sleep(0.01)
        go_on.set()
        return await call

    assert asyncio.run(ask()).text == "x"


@pytest.mark.parametrize("answer", [endless, lambda x: x.until_client_leaves()])
def test_cancelling_an_async_stream_closes_its_connection(server, connect, answer):
    """Before the first piece, while the model thinks, as well as after it."""
    server.play(answer)
    client = connect(server, contract="openai")

    async def consume():
        async for _ in client.astream("Who?"):
            pass

    async def cancel():
        task = asyncio.create_task(consume())
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancel(), HANG_S))
    assert server.left.wait(HANG_S)


def test_leaving_an_async_stream_closes_its_connection(server, connect):
    server.play(endless)
    client = connect(server, contract="openai")

    async def leave():
        pieces = client.astream("Who?")
        async for piece in pieces:
            assert piece == "Bill"
            break
        await pieces.aclose()

    asyncio.run(leave())
    assert server.left.wait(HANG_S)


def test_a_closed_client_can_be_used_again(server, connect):
    server.json({"output": "x"})
    client = connect(server)
    for _ in range(2):
        assert asyncio.run(client.achat("Hi")).text == "x"
        client.close()
    assert server.connections == 2


def test_the_requests_json_is_made_once_for_all_contracts():
    """ASCII, so that no server has to guess an encoding."""
    assert _json({"a": "ü🙂"}) == b'{"a": "\\u00fc\\ud83d\\ude42"}'
