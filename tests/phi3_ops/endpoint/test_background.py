"""Endpoints in the background: started, found, registered and stopped."""

import json
import os
import subprocess
import sys

import psutil
import pytest
import requests

from endpoint_requests import gone
from phi3_ops.endpoint import background
from phi3_ops.endpoint.background import (
    RunningEndpoint,
    endpoint_state_file,
    find_endpoint,
    log_file,
    register_endpoint,
    running_endpoints,
    start_endpoint,
    stop_endpoint,
    unregister_endpoint,
)
from phi3_ops.errors import OpsError
from tiny_endpoint import HANG_S, KEY


@pytest.fixture
def other():
    """A process that runs until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def started(monkeypatch):
    """The processes that `start_endpoint` started."""
    processes = []
    popen = subprocess.Popen

    def start(*args, **kw):
        processes.append(popen(*args, **kw))
        return processes[-1]

    monkeypatch.setattr(background.subprocess, "Popen", start)
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def register(workdir, name, pid, started=None):
    """Write a registration as another process would."""
    started = psutil.Process(pid).create_time() if started is None else started
    running = RunningEndpoint(name, pid, started, "http://127.0.0.1:9/score", "m")
    file = endpoint_state_file(workdir, name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(vars(running)))
    return running


# -- registrations -----------------------------------------------------------------------------------


def test_a_registered_endpoint_is_found(tmp_path):
    register_endpoint(tmp_path, "tuned", "http://127.0.0.1:9/score", "a, b")
    running = find_endpoint(tmp_path, "tuned")
    assert (running.name, running.pid) == ("tuned", os.getpid())
    assert (running.url, running.model) == ("http://127.0.0.1:9/score", "a, b")
    assert list(running_endpoints(tmp_path)) == [running]
    assert find_endpoint(tmp_path, "base") is None


def test_a_registration_has_no_key(tmp_path):
    register_endpoint(tmp_path, "tuned", "http://127.0.0.1:9/score", "a")
    fields = json.loads(endpoint_state_file(tmp_path, "tuned").read_text())
    assert set(fields) == {"name", "pid", "started", "url", "model"}


def test_a_reused_pid_is_not_the_endpoint(tmp_path):
    register(tmp_path, "tuned", os.getpid(), started=1.0)
    assert find_endpoint(tmp_path, "tuned") is None
    assert list(running_endpoints(tmp_path)) == []


def test_a_process_that_has_ended_is_not_found(tmp_path, other):
    register(tmp_path, "tuned", other.pid)
    assert find_endpoint(tmp_path, "tuned")
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert find_endpoint(tmp_path, "tuned") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "tuned", "more": 1}'])
def test_a_broken_registration_is_not_an_endpoint(tmp_path, text):
    file = endpoint_state_file(tmp_path, "tuned")
    file.parent.mkdir()
    file.write_text(text)
    assert find_endpoint(tmp_path, "tuned") is None


def test_only_the_own_registration_is_removed(tmp_path, other):
    register_endpoint(tmp_path, "mine", "http://127.0.0.1:9/score", "a")
    register(tmp_path, "other", other.pid)
    for name in ("mine", "other", "none"):
        unregister_endpoint(tmp_path, name)
    assert [running.name for running in running_endpoints(tmp_path)] == ["other"]


# -- start and stop ----------------------------------------------------------------------------------


def test_start_find_and_stop(tiny_model_dir, tmp_path, started):
    running = start_endpoint(tiny_model_dir, tmp_path, "tuned", key=KEY)
    try:
        assert find_endpoint(tmp_path, "tuned") == running
        base = running.url.removesuffix("/score")
        assert requests.get(base, timeout=HANG_S).text == "Healthy"
        key = {"authorization": f"Bearer {KEY}"}
        assert requests.get(f"{base}/v1/models", timeout=HANG_S).status_code == 401
        assert requests.get(f"{base}/v1/models", headers=key, timeout=HANG_S).status_code == 200
        assert KEY not in endpoint_state_file(tmp_path, "tuned").read_text()
        again = start_endpoint(tiny_model_dir, tmp_path, "tuned", key=KEY)  # replaces the first
        assert gone(running.pid) and not gone(again.pid)
    finally:
        assert stop_endpoint(tmp_path, "tuned")
    assert gone(again.pid)
    assert find_endpoint(tmp_path, "tuned") is None
    assert not stop_endpoint(tmp_path, "tuned")
    assert KEY not in log_file(tmp_path, "tuned").read_text()


def test_an_endpoint_that_does_not_start_is_an_error_with_its_last_line(tmp_path, started):
    with pytest.raises(
        OpsError, match="the endpoint 'tuned' did not start: .*none is not a folder"
    ) as caught:
        start_endpoint(tmp_path / "none", tmp_path, "tuned", key=KEY)
    assert caught.value.fix == f"See {log_file(tmp_path, 'tuned')}."
    assert find_endpoint(tmp_path, "tuned") is None


def test_an_endpoint_that_is_not_ready_in_time_is_ended(tmp_path, monkeypatch, started):
    monkeypatch.setattr(background, "START_TIMEOUT_S", 0.0)
    with pytest.raises(OpsError, match="the endpoint 'tuned' was not ready within 0 s"):
        start_endpoint(tmp_path / "none", tmp_path, "tuned", key=KEY)
    (process,) = started
    assert process.poll() is not None
