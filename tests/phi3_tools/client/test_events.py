"""Observers of calls: they see each 429 and each complete answer, in the context of the call."""

from __future__ import annotations

import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from phi3_tools import AuthenticationError, RateLimitedError, ServerError, Usage
from phi3_tools.client import CallObserver, observe_calls

ANSWER = {"output": "Bill", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
caller = contextvars.ContextVar("caller", default="")


class Recorder(CallObserver):
    def __init__(self):
        self.throttled, self.answered, self.failed = [], [], []

    def on_throttled(self, error):
        self.throttled.append((caller.get(), error))

    def on_answered(self, reply):
        self.answered.append((caller.get(), reply))

    def on_failed(self, error):
        self.failed.append(error)


@pytest.fixture
def recorder():
    recorder = Recorder()
    with observe_calls(recorder):
        yield recorder


def test_each_429_is_reported_and_other_errors_are_not(server, connect, waits, recorder):
    server.json({}, 429).json({}, 503).json({}, 424, {"ms-azureml-model-error-statuscode": "429"})
    server.json(ANSWER)
    connect(server, contract="chat").chat("Hi")
    assert [type(error) for _, error in recorder.throttled] == [RateLimitedError, RateLimitedError]


def test_a_429_after_the_last_attempt_is_reported(server, connect, waits, recorder):
    server.json({}, 429)
    with pytest.raises(RateLimitedError) as caught:
        connect(server, contract="chat", max_attempts="2").chat("Hi")
    assert [error for _, error in recorder.throttled][-1] is caught.value
    assert len(recorder.throttled) == 2
    assert recorder.answered == []


def test_the_error_of_a_call_is_reported_once_after_its_last_attempt(
    server, connect, waits, recorder
):
    server.json({}, 503).json(ANSWER).json({}, 401)
    client = connect(server, contract="chat")
    client.chat("Hi")
    assert recorder.failed == []
    with pytest.raises(AuthenticationError) as caught:
        client.chat("Hi")
    assert recorder.failed == [caught.value]


def test_a_complete_answer_is_reported_with_its_tokens(server, connect, recorder):
    server.json(ANSWER)
    reply = connect(server).chat("Hi")
    assert recorder.answered == [("", reply)]
    assert reply.usage == Usage(5, 2)


def test_a_stream_is_reported_at_its_end(server, connect, recorder):
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    server.events({"choices": [{"delta": {"content": "Bill"}}]}, end, "[DONE]")
    stream = connect(server).stream("Hi")
    assert next(stream) == "Bill"
    assert recorder.answered == []
    assert list(stream) == []
    assert recorder.answered == [("", stream.reply)]


def test_an_observer_runs_in_the_context_of_the_call(server, connect, waits, recorder):
    """Prompt flow runs tools in threads, each in a copy of its request's context."""
    server.json({}, 429).json(ANSWER)
    client = connect(server, contract="chat")
    context = contextvars.copy_context()
    context.run(caller.set, "a request")
    with ThreadPoolExecutor(1) as threads:
        threads.submit(context.run, client.chat, "Hi").result()
    assert [name for name, _ in recorder.throttled] == ["a request"]
    assert [name for name, _ in recorder.answered] == ["a request"]


def test_observers_are_independent_of_each_other(server, connect, recorder):
    server.json(ANSWER)
    client = connect(server)
    other = Recorder()
    with observe_calls(other):
        client.chat("Hi")
    client.chat("Hi")
    assert len(other.answered) == 1
    assert len(recorder.answered) == 2


def test_an_observer_is_removed_when_the_block_fails(server, connect):
    server.json(ANSWER)
    recorder = Recorder()
    with pytest.raises(ServerError), observe_calls(recorder):
        raise ServerError("")
    connect(server).chat("Hi")
    assert recorder.answered == []


def test_an_answer_is_logged_with_its_tokens(server, connect, caplog):
    server.json(ANSWER)
    with caplog.at_level(logging.DEBUG, "phi3_tools"):
        connect(server, contract="chat").chat("Hi")
    assert [record.getMessage() for record in caplog.records if "answered" in record.msg] == [
        "answered at attempt 1: 5 tokens in, 2 out"
    ]
