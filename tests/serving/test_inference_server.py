"""score.py under azureml-inference-server-http, the server that Azure ML runs around it."""

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

import inference_server

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def server(tiny_model_dir, scorer, tmp_path_factory):
    """A server of two workers with 16 threads each. `scorer` has exported the model already."""
    home = tmp_path_factory.mktemp("server")
    with inference_server.started(
        tiny_model_dir, home, WORKER_COUNT="2", PHI3_ENGINE="openvino"
    ) as server:
        server.wait()
        yield server


def send(server, payload, method="POST", kind="application/json"):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with closing(server.connect()) as connection:
        connection.request(method, "/score", body, {"Content-Type": kind})
        response = connection.getresponse()
        return response, response.read().decode()


@pytest.mark.parametrize(
    "payload",
    [
        {"input_data": ["Who?", "Why?"], "params": {"max_new_tokens": 9}},
        {"input_data": {"input_string": HI, "parameters": {"max_new_tokens": 9}}},
        {"messages": HI, "max_tokens": 9},
    ],
)
def test_each_contract_has_the_same_answer_with_and_without_the_server(server, scorer, payload):
    response, text = send(server, payload)
    assert response.status == 200
    assert response.headers["x-ms-run-function-failed"] == "False"
    received, expected = json.loads(text), scorer.answer(payload)
    for answer in (received, expected):
        if isinstance(answer, dict):
            answer.pop("id")
            answer.pop("created", None)
    assert received == expected


def test_the_chat_answer_has_usage_finish_reason_and_model(server):
    _, text = send(server, {"input_data": {"input_string": HI, "parameters": {"max_tokens": 3}}})
    answer = json.loads(text)
    assert (answer["model"], answer["finish_reason"]) == ("tiny-phi3", "length")
    assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "hot"), ("top_p", 0), ("max_new_tokens", 0), ("stop", [""]), ("seed", 1.5)],
)
@pytest.mark.parametrize("contract", ["list", "catalog", "openai"])
def test_an_invalid_parameter_is_a_400_that_names_it(server, contract, name, value):
    payload = {
        "list": {"input_data": ["Hi"], "params": {name: value}},
        "catalog": {"input_data": {"input_string": HI, "parameters": {name: value}}},
        "openai": {"messages": HI, name: value},
    }[contract]
    response, text = send(server, payload)
    error = json.loads(text)["error"]
    assert (response.status, error["param"]) == (400, name)
    assert name in error["message"]


@pytest.mark.parametrize(
    ("payload", "method", "kind", "status"),
    [
        (b"{", "POST", "application/json", 400),
        (b"\xff\xfe", "POST", "application/json", 400),
        # A JSON body is accepted whatever its content type.
        ({"messages": HI, "max_tokens": 2}, "POST", "text/plain", 200),
        (b"", "GET", "application/json", 405),
    ],
)
def test_the_status_tells_the_kind_of_error(server, payload, method, kind, status):
    assert send(server, payload, method, kind)[0].status == status


def test_a_stream_is_sent_as_events(server, scorer):
    payload = {"messages": HI, "max_tokens": 30, "stream": True}
    response, text = send(server, payload)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    streamed = "".join(delta.get("content", "") for delta in deltas)
    full = scorer.answer({**payload, "stream": False})
    assert streamed == full["choices"][0]["message"]["content"]


def test_concurrent_requests_get_their_own_answers(server, scorer):
    payloads = [
        {"input_data": [f"Question {n}: " + "why? " * (n % 9)], "params": {"max_new_tokens": 5 + n}}
        for n in range(48)
    ]
    expected = [scorer.answer(payload) for payload in payloads]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda payload: send(server, payload), payloads))
    assert [json.loads(text) for _, text in answers] == expected


WAITING = """
import pathlib, sys, time
sys.path.insert(0, {folder!r})
import score

class Waiting:
    wants_stream = lambda self, payload: False

    def answer(self, payload, is_abandoned):
        pathlib.Path("begun").touch()
        while not is_abandoned():
            time.sleep(0.02)
        pathlib.Path("abandoned").touch()

def init():
    score._scorer = Waiting()

run = score.run
"""


def test_generation_stops_when_the_client_of_a_plain_request_has_gone(tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING.format(folder=str(inference_server.SCORE.parent)))
    with inference_server.started(tmp_path, tmp_path, script) as server:
        server.wait()
        with closing(server.connect()) as connection:
            connection.request("POST", "/score", json.dumps({"messages": HI}))
            while not (tmp_path / "begun").exists():
                time.sleep(0.02)
        end = time.monotonic() + inference_server.START_S
        while not (tmp_path / "abandoned").exists():
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.02)


def test_the_server_is_not_healthy_before_init_has_ended(tmp_path):
    gate, script = tmp_path / "go", tmp_path / "slow.py"
    loading = "while not pathlib.Path('go').exists(): time.sleep(0.02)"
    script.write_text(
        f"import pathlib, time\n\ndef init():\n    {loading}\n\ndef run(data):\n    return 1\n"
    )
    with inference_server.started(tmp_path, tmp_path, script) as server:
        while "Invoking user's init function" not in server.log.read_text():
            assert server.process.poll() is None
        with closing(server.connect()) as connection:
            connection.timeout = 0.5
            connection.request("GET", "/")
            with pytest.raises(TimeoutError):  # it accepts the connection but does not answer
                connection.getresponse()
        gate.touch()
        server.wait()


def test_a_model_that_cannot_be_loaded_ends_the_server_with_3(tmp_path):
    with inference_server.started(tmp_path, tmp_path) as server:
        assert server.process.wait(inference_server.START_S) == 3
    assert "contains no model" in server.log.read_text()


def test_no_process_is_left_when_the_server_stops(tiny_model_dir, tmp_path, scorer):
    with inference_server.started(tiny_model_dir, tmp_path, PHI3_ENGINE="openvino") as server:
        server.wait()
        group = os.getpgid(server.process.pid)
    listed = subprocess.run(["ps", "-eo", "pgid="], capture_output=True, text=True).stdout
    assert str(group) not in listed.split()
