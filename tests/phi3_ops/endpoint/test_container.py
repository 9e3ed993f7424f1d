"""Deployments in processes that are really killed, and an endpoint that is really stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
import requests

from phi3_ops.endpoint import container as container_module
from phi3_ops.endpoint.container import Container, Deployment, EndpointError
from tiny_endpoint import HANG_S, KEY, running, stand_in

HEADERS = {"authorization": f"Bearer {KEY}"}
STATUS = "ms-azureml-model-error-statuscode"


def ask(url, stream=False, route="/score", **payload):
    return requests.post(url + route, json=payload, headers=HEADERS, stream=stream, timeout=HANG_S)


def events(chunks):
    return [e.removeprefix("data: ") for e in b"".join(chunks).decode().split("\n\n") if e]


def until(condition):
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def begun(url, **payload):
    """A stream that has begun: the response, its pieces, and the process that it comes from."""
    response = ask(url, stream=True, do="stream", **payload)
    pieces = response.iter_content(None)
    first = next(pieces)
    return pieces, json.loads(first.split(b"\n\n")[0].removeprefix(b"data: "))["pid"]


# --- a process that ends ----------------------------------------------------------------------


def test_a_killed_process_gives_errors_and_comes_back(tmp_path, caplog):
    container = Container(stand_in(tmp_path))
    with running([container]) as url:
        pieces, pid = begun(url)
        os.kill(pid, signal.SIGKILL)
        last = json.loads(events(pieces)[-1])
        assert last["error"]["code"] == 502
        until(lambda: requests.get(url).status_code == 200)
        pieces, other = begun(url, count=3)
        assert other != pid
        assert events(pieces)[-1] == "[DONE]"
    assert "deployment blue: its process ended (signal 9): starting it" in caplog.text
    assert gone(other)


@pytest.mark.parametrize(("route", "status"), [("/score", 424), ("/v1/chat/completions", 502)])
def test_a_request_in_a_process_that_ends_is_told(tmp_path, route, status):
    with running([Container(stand_in(tmp_path))]) as url:
        answer = ask(url, route=route, do="die")
        assert answer.status_code == status
        assert answer.headers.get(STATUS, "502") == "502"
        assert "process ended" in answer.json()["error"]["message"]


def test_while_it_loads_it_is_not_ready(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(container_module, "LOAD_AGAIN_S", (0.05, 0.1))
    deployment = stand_in(tmp_path)
    with running([Container(deployment)]) as url:
        deployment.model.rename(tmp_path / "away")
        ask(url, do="die")
        until(lambda: "is no model (exit code 1): starting it" in caplog.text)
        answer = ask(url, do="echo")
        assert (answer.status_code, answer.headers[STATUS]) == (424, "503")
        assert answer.headers["ms-azureml-model-error-reason"] == "model_not_ready"
        assert requests.get(url).status_code == 503
        (tmp_path / "away").rename(deployment.model)
        until(lambda: requests.get(url).status_code == 200)
        assert ask(url, do="echo").status_code == 200


def test_a_process_that_hangs_stops_nobody_else(tmp_path):
    stuck = Container(stand_in(tmp_path, "stuck", weight=0, request_timeout_ms=300))
    with running([stuck, Container(stand_in(tmp_path))]) as url:
        process = psutil.Process(stuck._process.pid)
        process.suspend()
        headers = {**HEADERS, "azureml-model-deployment": "stuck"}
        large = {"do": "echo", "text": "x" * 2**20}  # more than a pipe holds
        answer = requests.post(f"{url}/score", json=large, headers=headers, timeout=HANG_S)
        assert answer.status_code == 408
        assert ask(url, do="echo").status_code == 200
        process.resume()
        until(lambda: stuck.in_flight == 0)


def test_a_first_load_that_fails_is_told(tmp_path):
    container = Container(Deployment("blue", tmp_path / "none", code=stand_in(tmp_path).code))
    container.start()
    with pytest.raises(EndpointError, match="cannot be loaded: .* is no model"):
        container.wait()
    container.close()


def test_what_the_scoring_code_started_ends_with_it(tmp_path):
    deployment = stand_in(tmp_path)
    with (deployment.code / "score.py").open("a") as code:
        code.write("import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n")
        code.write(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n")
    container = Container(deployment)
    container.start()
    container.wait()
    container.close()
    until(lambda: gone(int((tmp_path / "pid").read_text())))


def test_a_process_that_ends_while_it_loads_is_told(tmp_path):
    deployment = stand_in(tmp_path)
    (deployment.code / "score.py").write_text("import os; os._exit(4)")
    container = Container(deployment)
    container.start()
    with pytest.raises(EndpointError, match="its process ended while it was loading the model"):
        container.wait()
    container.close()


# --- an endpoint that is stopped --------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
import requests
from phi3_ops.endpoint import Deployment, serve_models

def ready(url):
    assert requests.get(url).text == "Healthy"  # it may call what it is told of
    print(url, flush=True)

deployment = Deployment("blue", Path(sys.argv[1]), code=Path(sys.argv[2]))
serve_models([deployment], port=0, key=sys.stdin.readline().strip(), ready=ready)
print("returned", flush=True)
"""


@contextmanager
def served(folder):
    """An endpoint in a process of its own, in a group of its own."""
    deployment = stand_in(folder)
    command = [sys.executable, "-c", SERVE, str(deployment.model), str(deployment.code)]
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
        pieces, _ = begun(url, count=100)
        for each in (process, *psutil.Process(process.pid).children()):  # as systemd does it
            each.send_signal(number)
        until(lambda: refuses(url))
        assert process.poll() is None
        said = events(pieces)
        out, err = process.communicate(timeout=HANG_S)
    assert said[-1] == "[DONE]"
    assert json.loads(said[-2])["number"] == 99
    assert (process.returncode, out.strip()) == (0, "returned"), err
    assert KEY not in err


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
        pieces, worker = begun(url)
        process.terminate()
        until(lambda: refuses(url))
        process.terminate()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            events(pieces)
        assert process.wait(HANG_S) == 0
    until(lambda: gone(worker))


def test_an_endpoint_that_is_killed_leaves_no_process(tmp_path):
    with served(tmp_path) as (process, url):
        _, worker = begun(url)
        process.kill()
        until(lambda: gone(worker))
