"""Traffic, limits and timeouts of the local endpoint, with scoring script that obeys its requests."""

import json
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from endpoint_requests import DEPLOYMENT, HEADERS, ask, until
from tiny_endpoint import HANG_S, KEY, ThreadContainer, running, stand_in

STATUS, REASON = "ms-azureml-model-error-statuscode", "ms-azureml-model-error-reason"
ROUTES = ("/score", "/v1/chat/completions")


@pytest.fixture
def serving(tmp_path):
    """A context manager that serves one deployment with these settings: its URL and its container."""

    @contextmanager
    def serving(**settings):
        container = ThreadContainer(stand_in(tmp_path, **settings))
        with running([container]) as url:
            yield url, container

    return serving


# --- traffic ----------------------------------------------------------------------------------


def shares(folder, **weights):
    return [ThreadContainer(stand_in(folder, name, weight=w)) for name, w in weights.items()]


def test_traffic_is_split_by_weight(tmp_path):
    with running(shares(tmp_path, blue=75, green=25, idle=0)) as url:
        seen = Counter(ask(url, do="echo").headers[DEPLOYMENT] for _ in range(200))
        assert set(seen) == {"blue", "green"}
        assert seen["blue"] > seen["green"]  # wrong by chance once in 10**13 runs
        assert ask(url, deployment="idle", do="echo").headers[DEPLOYMENT] == "idle"
        listed = requests.get(f"{url}/v1/models", headers=HEADERS).json()["data"]
        assert [model["id"] for model in listed] == ["blue", "green", "idle"]
        assert {model["runtime"] for model in listed} == {"a stand-in"}


def test_without_traffic_there_is_a_404(tmp_path):
    with running(shares(tmp_path, blue=0, green=0)) as url:
        answer = ask(url, do="echo")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "Specified traffic group could not be found."
        assert ask(url, deployment="green", do="echo").status_code == 200


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_that_takes_too_long_is_a_408(serving, tmp_path, route):
    with serving(request_timeout_ms=200) as (url, container):
        answer = ask(url, route, do="wait", until=str(tmp_path / "go"))
        (tmp_path / "go").touch()
        assert answer.status_code == 408
        assert answer.json()["error"]["code"] == "RequestTimeout"
        assert STATUS not in answer.headers
        assert container.in_flight == 0
        assert ask(url, route, do="echo").status_code == 200


def test_a_stream_that_takes_too_long_ends_with_an_error(serving, tmp_path):
    closed = tmp_path / "closed"
    with serving(request_timeout_ms=300) as (url, _):
        answer = ask(url, do="stream", closed=str(closed))
        *events, last = [json.loads(e[6:]) for e in answer.text.split("\n\n") if e]
        assert (answer.status_code, events[0]["number"]) == (200, 0)
        assert last["error"]["code"] == "RequestTimeout"
        until(closed.exists)  # the generation has ended too


def test_a_body_that_does_not_come_is_a_408(serving):
    with serving(request_timeout_ms=200) as (url, _):
        assert raw(url, 100, b"[").startswith(b"HTTP/1.1 408 ")


def test_a_body_that_says_it_is_too_large_is_refused_unread(serving):
    with serving() as (url, _):
        assert raw(url, 100 * 2**20).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("wrong", 401)])
def test_a_client_that_sends_too_much_gets_an_answer_and_no_reset(serving, key, status):
    with serving() as (url, _):
        for body in (b"x" * (30 * 2**20), iter([b"x" * 2**20] * 30)):
            headers = {"authorization": f"Bearer {key}"}
            answer = requests.post(f"{url}/score", data=body, headers=headers, timeout=HANG_S)
            assert answer.status_code == status


def raw(url, length, body=b""):
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection((host, int(port)), timeout=HANG_S) as sock:
        sock.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        return sock.recv(65536)


# --- how many ---------------------------------------------------------------------------------


def test_more_than_twice_the_concurrency_is_a_429(serving, tmp_path):
    go = tmp_path / "go"
    settings = {"max_concurrent_requests_per_instance": 2}
    with serving(**settings) as (url, container), ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, url, do="wait", until=str(go)) for _ in range(4)]
        until(lambda: container.in_flight == 4)
        refused = ask(url, do="echo")
        go.touch()
        assert [each.result().status_code for each in waiting] == [200] * 4
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "TooManyRequests"
        assert STATUS not in refused.headers
        assert ask(url, do="echo").status_code == 200


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_away_gives_its_place_back(serving, tmp_path, streams, caplog):
    closed, go = tmp_path / "closed", tmp_path / "go"
    with serving() as (url, container):
        caplog.clear()
        if streams:
            response = ask(url, do="stream", closed=str(closed), stream=True)
            next(response.iter_content(10))
            response.close()
            until(closed.exists)
        else:
            with pytest.raises(requests.ReadTimeout):
                payload = {"do": "wait", "until": str(go)}
                requests.post(f"{url}/score", json=payload, headers=HEADERS, timeout=0.3)
            until((tmp_path / "go-abandoned").exists)  # the scoring script knows it
        until(lambda: container.in_flight == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# --- what the container says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "model_error"), (429, "too_many_pending_request"), (503, "model_not_ready")],
)
def test_its_statuses_are_wrapped_on_score_alone(serving, status, reason):
    with serving() as (url, _):
        wrapped = ask(url, do="fail", status=status)
        assert (wrapped.status_code, wrapped.headers[STATUS]) == (424, str(status))
        assert wrapped.headers[REASON] == reason
        plain = ask(url, "/v1/chat/completions", do="fail", status=status)
        assert (plain.status_code, plain.json()) == (status, wrapped.json())
        assert STATUS not in plain.headers


def test_a_failure_of_the_code_is_a_wrapped_500_without_its_inside(serving, caplog):
    with serving() as (url, _):
        answer = ask(url, doing="a KeyError in the scoring script")
    assert (answer.status_code, answer.headers[STATUS]) == (424, "500")
    assert answer.json()["error"]["message"]
    assert "KeyError" not in answer.text
    assert "the scoring script failed" in caplog.text
