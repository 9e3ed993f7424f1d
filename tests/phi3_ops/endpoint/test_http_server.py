"""An endpoint in its own process that is stopped by signals: one, two, and SIGKILL."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import requests

from endpoint_requests import ask, events, gone, started_stream, until
from tiny_endpoint import HANG_S, KEY, stand_in

SERVE = """
import sys
from pathlib import Path
import requests
from phi3_ops.endpoint import Deployment, serve_models
from phi3_ops.endpoint.http_server import EndpointProtocol

def ready(url, runtimes):
    assert requests.get(url).text == "Healthy"  # it may call the URL that it gets
    print(url, flush=True)

EndpointProtocol.request_s = float(sys.argv[3])
deployment = Deployment("blue", Path(sys.argv[1]), code=Path(sys.argv[2]))
serve_models([deployment], port=0, key=sys.stdin.readline().strip(), ready=ready)
print("returned", flush=True)
"""


@contextmanager
def served(folder, request_s=20.0):
    """An endpoint in its own process and process group."""
    deployment = stand_in(folder)
    command = [sys.executable, "-c", SERVE, str(deployment.model), str(deployment.code)]
    command.append(str(request_s))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        try:
            process.stdin.write(KEY + "\n")
            process.stdin.flush()
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish(tmp_path, number):
    with served(tmp_path) as (process, url):
        pieces, _ = started_stream(url, count=100)
        for each in (process, *psutil.Process(process.pid).children()):  # as systemd does it
            each.send_signal(number)
        until(lambda: refuses(url))
        assert process.poll() is None
        received = events(pieces)
        out, err = process.communicate(timeout=HANG_S)
    assert received[-1] == "[DONE]"
    assert json.loads(received[-2])["number"] == 99
    assert (process.returncode, out.strip()) == (0, "returned"), err
    assert KEY not in err


def connect(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=HANG_S)


def read_answer(connection):
    """The status of a complete answer, and its body."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


@pytest.mark.finding(
    13,
    "half-sent requests and idle connections on the local endpoint",
    "408 after 20 seconds, and at most 256 connections; the one that has been idle longest is closed",
)
def test_half_sent_requests_end_and_idle_connections_give_way(tmp_path):
    head = f"POST /score HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n"
    half = f"{head}content-length: 99\r\n\r\n{{".encode()
    body = '{"do": "echo"}'
    question = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
    with served(tmp_path, request_s=1.0) as (_, url), ExitStack() as connections:
        slow = connections.enter_context(connect(url))
        slow.sendall(half)
        status, answer = read_answer(slow)
        assert (status, answer["error"]["code"]) == (408, "RequestTimeout")
        assert answer["error"].keys() == {"message", "type", "param", "code"}
        for _ in range(300):  # more than the endpoint keeps
            client = connections.enter_context(connect(url))
            client.sendall(question)
            assert read_answer(client)[0] == 200
        client.sendall(question)  # the last one was kept open
        assert read_answer(client)[0] == 200


def refuses(url):
    try:
        requests.get(url, timeout=HANG_S)
    except requests.ConnectionError:
        return True
    return False


def test_a_plain_request_in_flight_finishes_too(tmp_path):
    go = tmp_path / "go"
    with served(tmp_path) as (process, url), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, url, do="wait", until=str(go))
        until((tmp_path / "go-begun").exists)
        process.terminate()
        until(lambda: refuses(url))
        go.touch()
        assert answer.result().json() == {"do": "wait", "until": str(go)}
        assert process.wait(HANG_S) == 0


def test_a_second_signal_ends_it_at_once(tmp_path):
    with served(tmp_path) as (process, url):
        pieces, worker = started_stream(url)
        process.terminate()
        until(lambda: refuses(url))
        process.terminate()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            events(pieces)
        assert process.wait(HANG_S) == 0
    until(lambda: gone(worker))


def test_an_endpoint_that_is_killed_leaves_no_process(tmp_path):
    with served(tmp_path) as (process, url):
        _, worker = started_stream(url)
        process.kill()
        until(lambda: gone(worker))
