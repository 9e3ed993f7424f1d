"""Deployments: their settings, and their processes, which are really killed."""

import json
import os
import signal

import psutil
import pytest
import requests

from endpoint_requests import HEADERS, ask, events, gone, started_stream, until
from phi3_ops.endpoint import container as container_module
from phi3_ops.endpoint.container import Container, Deployment, EndpointError
from tiny_endpoint import HANG_S, running, stand_in

STATUS = "ms-azureml-model-error-statuscode"


# --- a process that ends ----------------------------------------------------------------------


def test_a_killed_process_gives_errors_and_is_restarted(tmp_path, caplog):
    container = Container(stand_in(tmp_path))
    with running([container]) as url:
        pieces, pid = started_stream(url)
        os.kill(pid, signal.SIGKILL)
        last = json.loads(events(pieces)[-1])
        assert last["error"]["code"] == 502
        until(lambda: requests.get(url).status_code == 200)
        pieces, other = started_stream(url, count=3)
        assert other != pid
        assert events(pieces)[-1] == "[DONE]"
    assert "deployment blue: its process ended (signal 9): restarting" in caplog.text
    assert gone(other)


@pytest.mark.parametrize(("route", "status"), [("/score", 424), ("/v1/chat/completions", 502)])
def test_a_request_in_a_process_that_ends_is_an_error(tmp_path, route, status):
    with running([Container(stand_in(tmp_path))]) as url:
        answer = ask(url, route=route, do="die")
        assert answer.status_code == status
        assert answer.headers.get(STATUS, "502") == "502"
        assert "process ended" in answer.json()["error"]["message"]


def test_while_it_loads_it_is_not_ready(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(container_module, "RELOAD_WAIT_S", (0.05, 0.1))
    deployment = stand_in(tmp_path)
    with running([Container(deployment)]) as url:
        deployment.model.rename(tmp_path / "away")
        ask(url, do="die")
        until(lambda: "is no model (exit code 1): restarting" in caplog.text)
        answer = ask(url, do="echo")
        assert (answer.status_code, answer.headers[STATUS]) == (424, "503")
        assert answer.headers["ms-azureml-model-error-reason"] == "model_not_ready"
        assert requests.get(url).status_code == 503
        (tmp_path / "away").rename(deployment.model)
        until(lambda: requests.get(url).status_code == 200)
        assert ask(url, do="echo").status_code == 200


def test_a_process_that_hangs_does_not_stop_other_deployments(tmp_path):
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


def test_a_first_load_that_fails_is_an_error(tmp_path):
    container = Container(Deployment("blue", tmp_path / "none", code=stand_in(tmp_path).code))
    container.start()
    with pytest.raises(EndpointError, match="cannot be loaded: .* is no model"):
        container.wait()
    container.close()


def test_processes_of_the_scoring_script_end_with_it(tmp_path):
    deployment = stand_in(tmp_path)
    with (deployment.code / "score.py").open("a") as code:
        code.write("import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n")
        code.write(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n")
    container = Container(deployment)
    container.start()
    container.wait()
    container.close()
    until(lambda: gone(int((tmp_path / "pid").read_text())))


def test_a_process_that_ends_while_it_loads_is_an_error(tmp_path):
    deployment = stand_in(tmp_path)
    (deployment.code / "score.py").write_text("import os; os._exit(4)")
    container = Container(deployment)
    container.start()
    with pytest.raises(EndpointError, match="its process ended while it was loading the model"):
        container.wait()
    container.close()


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("x", {}, "'x' is not a valid name"),
        ("1st", {}, "'1st' is not a valid name"),
        ("blue", {"weight": 101}, "weight must be 0 to 100, not 101"),
        (
            "blue",
            {"request_timeout_ms": 180_001},
            "request_timeout_ms must be 1 to 180000, not 180001",
        ),
        ("blue", {"max_concurrent_requests_per_instance": 0}, "must be 1 to 1000, not 0"),
    ],
)
def test_settings_that_azure_refuses_are_refused(tmp_path, name, settings, message):
    with pytest.raises(EndpointError, match=message):
        Deployment(name, tmp_path, **settings)
