"""Calls against a scripted endpoint: detection of the contract, attempts, errors."""

from __future__ import annotations

import pytest

from phi3_tools import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    EndpointTimeoutError,
    Limits,
    RateLimitedError,
    ScoringFailedError,
    ServerError,
)
from phi3_tools.client.calls import _json

REQUEST_ID = {"x-ms-request-id": "r-1"}


REFUSED = {"error": {"message": "unknown input"}}


def test_headers(server, connect, key):
    server.json({"output": "x"})
    connect(server, deployment="blue").chat("Hi")
    connect(server).chat("Hi")
    blue, any_deployment = (request.headers for request in server.requests)
    assert blue["azureml-model-deployment"] == "blue"
    assert "azureml-model-deployment" not in any_deployment
    assert blue["authorization"] == f"Bearer {key}"
    assert blue["accept"] == "application/json"


def test_requests_are_ascii_json():
    """A server does not have to know the encoding of ASCII."""
    assert _json({"a": "ü🙂"}) == b'{"a": "\\u00fc\\ud83d\\ude42"}'


# -- which contract --------------------------------------------------------------------------------


def test_an_answer_in_another_contract_reveals_the_contract(server, connect):
    """An MLflow endpoint may accept the request and misread it. Its answer is a list."""
    server.json(["misread"]).json(["Bill"])
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "mlflow"
    client.chat("Who?")
    kinds = [type(body["input_data"]).__name__ for body in server.bodies()]
    assert kinds == ["dict", "list", "list"]


def only_lists(x):
    if isinstance(x.request.json["input_data"], list):
        return x.respond(b'["Bill"]')
    return x.respond(
        b'{"message": "not a list"}', 424, {"ms-azureml-model-error-statuscode": "400"}
    )


def test_a_refusal_leads_to_the_next_contract(server, connect):
    server.play(only_lists)
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "mlflow"
    before = len(server.requests)
    client.chat("Who?")
    assert len(server.requests) == before + 1


def test_a_passing_failure_is_not_mistaken_for_a_refusal(server, connect):
    server.json(REFUSED, 400).json(["Bill"]).json({"output": "Bill"})
    client = connect(server)
    assert client.chat("Who?").text == "Bill"
    assert client.contract == "auto"
    client.chat("Who?")
    assert client.contract == "chat"


def test_if_no_contract_fits_the_error_is_that_of_the_likeliest(server, connect):
    server.json(REFUSED, 400, REQUEST_ID).json({"error": "list"}, 400)
    with pytest.raises(BadRequestError, match=r"unknown input \[request r-1\]"):
        connect(server).chat("Hi")


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (500, ServerError)])
def test_errors_unrelated_to_the_contract_end_the_search(server, connect, waits, status, error):
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
def test_errors_that_would_recur_are_not_repeated(server, connect, waits, status):
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


def test_a_wait_beyond_the_deadline_is_not_started(server, connect, waits):
    server.json({}, 429, {"retry-after": "50"})
    with pytest.raises(RateLimitedError):
        connect(server, deadline_s="20").chat("Hi")
    assert waits == []


def test_a_lost_connection_is_repeated(server, connect, waits):
    server.play(lambda x: x.hang_up()).json({"output": "x"})
    assert connect(server).chat("Hi").attempts == 2


def test_an_error_with_status_200_is_repeated(server, connect, waits):
    server.json({"output": None, "error": {"message": "CUDA"}}).json({}).json({"output": "x"})
    assert connect(server, contract="chat").chat("Hi").attempts == 3


def test_the_deadline_covers_all_attempts(server, connect):
    server.play(lambda x: x.until_client_leaves())
    with pytest.raises(EndpointTimeoutError):
        connect(server, deadline_s="0.5", read_timeout_s="0.2", backoff_first_s="0.01").chat("Hi")
    assert 2 <= len(server.requests) <= 4


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"cut', b"\xff", b"[" * 100_000])
def test_answers_that_are_not_json_are_refused(server, connect, body):
    server.give(200, body, REQUEST_ID)
    with pytest.raises(BadAnswerError, match="is not JSON.*Check that the connection's") as caught:
        connect(server, contract="chat").chat("Hi")
    assert caught.value.request_id == "r-1"


def test_errors_with_status_200_have_the_request_id(server, connect, waits):
    server.json({"error": "engine"}, 200, REQUEST_ID)
    with pytest.raises(ScoringFailedError, match=r"engine \[request r-1\]"):
        connect(server, contract="chat").chat("Hi")


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("ask", ["chat", "stream"])
def test_the_key_is_in_no_error(server, connect, waits, key, status, ask):
    """This holds even if the endpoint repeats the key."""
    server.json({"error": {"message": f"bad key {key}, really {key}"}}, status)
    client = connect(server, contract="chat")
    with pytest.raises(Exception, match="bad key …, really …") as caught:
        list(getattr(client, ask)("Hi"))
    assert key not in f"{caught.value} {caught.value!r} {caught.value.as_dict()}"
    assert key not in repr(vars(client))
