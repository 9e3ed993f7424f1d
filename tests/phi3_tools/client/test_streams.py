"""Streams against a scripted endpoint: pieces, errors in the middle, closing, time limits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_tools import (
    BadAnswerError,
    BadRequestError,
    ConnectionLostError,
    EndpointTimeoutError,
    ScoringFailedError,
    Usage,
)

HANG_S = 30


USAGE = {"prompt_tokens": 5, "completion_tokens": 2}


REQUEST_ID = {"x-ms-request-id": "r-1"}


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}


def test_pieces_arrive_before_the_end(server, connect):
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


def test_the_chat_contract_streams_if_the_endpoint_does(server, connect):
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
    assert server.client_left.wait(HANG_S)


@pytest.mark.parametrize("contract", ["chat", "mlflow", "openai", "auto"])
def test_one_piece_if_the_endpoint_does_not_stream(server, connect, contract):
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
    parameters = x.request.json["input_data"]["parameters"]
    return (
        x.respond(b'"unknown"', 400) if "stream" in parameters else x.respond(b'{"output": "Bill"}')
    )


def test_an_image_that_refuses_stream_is_asked_without_it(server, connect):
    server.play(no_stream)
    client = connect(server, contract="chat")
    assert list(client.stream("Who?")) == ["Bill"]
    assert list(client.stream("Who?")) == ["Bill"]
    assert len(server.requests) == 3  # the refusal is remembered


def test_an_image_that_fails_on_stream_is_asked_without_it(server, connect):
    server.json({"error": "unexpected keyword stream"}).json({"output": "Bill"})
    client = connect(server, contract="chat")
    stream = client.stream("Who?")
    assert list(stream) == ["Bill"]
    assert stream.reply.attempts == 2


def test_an_endpoint_that_has_streamed_is_not_asked_without_stream(server, connect, waits):
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
    ("events", "cut", "error", "message"),
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
def test_an_error_in_the_middle_is_not_repeated(
    server, connect, waits, events, cut, error, message
):
    """Text that a person has read is not taken back."""

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
    with pytest.raises(error, match=message) as caught:
        next(stream)
    assert caught.value.request_id == "r-1"
    assert stream.reply is None
    assert len(server.requests) == 1
    assert list(stream) == []


def test_a_stream_without_done_may_end_with_a_finish_reason(server, connect):
    server.events(delta("Bill"), END)
    assert list(connect(server, contract="openai").stream("Who?")) == ["Bill"]


def test_an_empty_answer_needs_a_finish_reason(server, connect):
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
    assert server.client_left.wait(HANG_S)
    assert list(stream) == []


def test_a_stream_without_references_is_closed(server, connect):
    server.play(endless)
    assert next(connect(server, contract="openai").stream("Who?")) == "Bill"
    assert server.client_left.wait(HANG_S)


def test_a_stream_that_is_not_read_sends_no_request(server, connect):
    with connect(server).stream("Who?"):
        pass
    assert server.requests == []


def test_another_thread_can_close_a_stream(server, connect):
    server.play(endless)
    stream = connect(server, contract="openai").stream("Who?")
    assert next(stream) == "Bill"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: next(stream, None))
        time.sleep(0.05)  # until the thread waits
        stream.close()
        assert (
            isinstance(waiting.exception(HANG_S), EndpointTimeoutError) or waiting.result() is None
        )
    assert server.client_left.wait(HANG_S)


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


def test_the_deadline_ends_a_silent_stream(server, connect):
    server.play(endless)
    stream = connect(server, contract="openai", deadline_s="0.3").stream("Who?")
    with pytest.raises(EndpointTimeoutError, match="no complete answer within 0.3 s"):
        list(stream)


def test_an_oversized_stream_is_ended(server, connect):
    server.events(delta("x" * 2000), END, "[DONE]")
    stream = connect(server, contract="openai", max_answer_bytes="1000").stream("Hi")
    with pytest.raises(BadAnswerError, match="longer than 1000 bytes"):
        list(stream)
