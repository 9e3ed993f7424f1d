"""The local endpoint over real HTTP: the golden exchanges, the routes, and the request log."""

import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest
import requests

from phi3_ops.endpoint import front
from tiny_endpoint import HANG_S, KEY, running

TESTS = Path(__file__).resolve().parents[2]
GOLDEN = sorted((TESTS / "golden" / "endpoint").glob("*.json"))
HI = [{"role": "user", "content": "Hi"}]
ROUTES = ("/score", "/v1/chat/completions")


@pytest.fixture(scope="module")
def url(tiny_model_dir):
    with running(tiny_model_dir) as url:
        yield url


@pytest.fixture
def session():
    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {KEY}"
        yield session


def events(response):
    """The data of the server-sent events, read from raw bytes."""
    blocks = response.content.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


# --- golden exchanges -------------------------------------------------------------------------

MASKED = (
    *("id", "created", "content", "arguments", "output"),
    *("finish_reason", "completion_tokens", "total_tokens"),
)


def masked(value, name=None):
    """A body without the values that depend on the random model, the clock and chance."""
    if isinstance(value, dict):
        return {key: masked(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    return f"<{type(value).__name__}>" if name in MASKED and value else value


def merged(stream):
    """A masked stream in which equal neighbours, such as deltas, are one event."""
    return [event for event, _ in groupby(masked(stream))]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_exchanges(url, path):
    golden = json.loads(path.read_text(encoding="utf-8"))
    request, expected = golden["request"], golden["response"]
    headers = {name: text.replace("{key}", KEY) for name, text in request["headers"].items()}
    response = requests.request(
        request["method"], url + request["path"], headers=headers, json=request.get("body")
    )
    assert response.status_code == expected["status"]
    assert {name: response.headers[name] for name in expected["headers"]} == expected["headers"]
    if "events" in expected:
        assert merged(events(response)) == merged(expected["events"])
    elif isinstance(expected["body"], str):
        assert response.text == expected["body"]
    else:
        body = response.json()
        name = "content" if isinstance(body, list) else None
        assert masked(body, name) == masked(expected["body"], name)


def test_there_are_golden_exchanges():
    assert len(GOLDEN) >= 20


# --- the front end ----------------------------------------------------------------------------


@pytest.mark.finding(24, "a request to the endpoint has any bytes in `Authorization`", "401")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer ü"),
        # In Python, the upper case of these is not in Latin-1.
        *("ÿ", f"ÿ {KEY}", "µ x"),
    ],
)
def test_without_the_key_there_is_a_401(url, route, header):
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    response = requests.post(url + route, headers=headers, json={"messages": HI})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "Unauthorized"
    assert "ms-azureml-model-error-statuscode" not in response.headers


def test_the_scheme_may_be_spelt_in_any_case(url):
    headers = {"authorization": f"bearer  {KEY}"}
    assert requests.get(f"{url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(("name", "status"), [("blue", 200), ("green", 404)])
def test_a_deployment_is_picked_by_header(url, session, name, status):
    response = session.post(
        f"{url}/score",
        json={"input_data": ["Hi"], "params": {"max_new_tokens": 1}},
        headers={"azureml-model-deployment": name},
    )
    assert response.status_code == status


@pytest.mark.parametrize(("route", "status"), [("/score", 424), ("/v1/chat/completions", 400)])
def test_bad_json_is_an_error_of_the_container(url, session, route, status):
    response = session.post(url + route, data=b"{")
    assert response.status_code == status
    assert response.headers.get("ms-azureml-model-error-statuscode", "400") == "400"
    assert "JSON" in response.json()["error"]["message"]


def test_a_request_that_stops_being_http_is_a_400_and_not_logged(url, caplog):
    head = b"POST /openapi.json HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), HANG_S) as sock:
        sock.sendall(head + b"2\r\n{}xx\r\n0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
    requests.get(url)  # after the first request has ended

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_a_413(url, session, monkeypatch, chunked):
    monkeypatch.setattr(front, "MAX_BODY", 1000)
    body = b"[" * 2000
    response = session.post(f"{url}/score", data=iter([body]) if chunked else body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "RequestTooLarge"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/score", 405), ("GET", "/x", 404)])
def test_other_routes(url, method, path, status):
    assert requests.request(method, url + path).status_code == status


def test_unicode_goes_through_without_loss(url, session):
    text = "Österreich 日本 🙂👩‍💻 \u2028 \x85 e\u0301"
    payload = {"input_data": [text], "params": {"max_new_tokens": 1, "return_full_text": True}}
    assert session.post(f"{url}/score", json=payload).json()[0].startswith(text)


def test_a_stream_has_the_text_of_the_whole_answer(url, session):
    payload = {"messages": HI, "max_tokens": 60}
    choice = session.post(f"{url}/v1/chat/completions", json=payload).json()["choices"][0]
    response = session.post(f"{url}/score", json={**payload, "stream": True})
    *chunks, done = events(response)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert (text, done) == (choice["message"]["content"], "[DONE]")


def test_requests_in_flight_batch_together(url, session):
    def ask(question):
        payload = {"input_data": [question], "params": {"max_new_tokens": 30}}
        headers = {"authorization": f"Bearer {KEY}"}
        return requests.post(f"{url}/score", json=payload, headers=headers).json()

    questions = [f"Question {n}" for n in range(16)]
    alone = [ask(question) for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        assert list(pool.map(ask, questions)) == alone


def test_the_openai_package_is_served(url):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny-phi3"]
        ask = {"model": "tiny-phi3", "messages": HI, "max_tokens": 9}
        answer = client.chat.completions.create(**ask)
        chunks = list(client.chat.completions.create(**ask, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == answer.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="temperature must be"):
            client.chat.completions.create(**ask, temperature=3)
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_an_incomplete_request_is_not_a_server_error(url, caplog):
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with caplog.at_level(logging.INFO, logger="phi3.endpoint"):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(head.encode() + b"Content-Length: 100\r\n\r\n[")
        assert "POST /score 400" in lines_of(caplog, 1)[0]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- the request log and the ids --------------------------------------------------------------


def test_request_ids_are_logged_and_returned(url, session, caplog):
    with caplog.at_level(logging.INFO, logger="phi3.endpoint"):
        response = session.post(
            f"{url}/score?token=hidden",
            json={"input_data": ["a private question"], "params": {"max_new_tokens": 1}},
            headers={"x-ms-client-request-id": "mine 1;" + "x" * 50},
        )
        requests.get(f"{url}/a%0ab", headers={"authorization": "Bearer abc"})
        line, odd = lines_of(caplog, 2)
    client_id = ("mine1" + "x" * 50)[:40]
    assert response.headers["x-ms-client-request-id"] == client_id
    request_id = response.headers["x-ms-request-id"]
    assert line.startswith(f"{request_id} client={client_id} POST /score 200 ")
    assert " client=- GET /a?b 404 " in odd
    assert (line.split()[-1], odd.split()[-1]) == ("blue", "-")
    for secret in (KEY, "private", "hidden", "abc"):
        assert secret not in caplog.text


def lines_of(caplog, count):
    """The lines of the request log; a line is written a moment after its answer."""
    for _ in range(HANG_S * 100):
        lines = [r.getMessage() for r in caplog.records if r.name == "phi3.endpoint"]
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    raise AssertionError("the requests were not logged")
