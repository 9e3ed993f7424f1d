"""Endpoints in the background: started, found and stopped."""

import subprocess
import sys

import pytest
import requests

from endpoint_requests import gone
from phi3_ops.endpoint import background
from phi3_ops.endpoint.background import start_endpoint, stop_all_endpoints, stop_endpoint
from phi3_ops.endpoint.registration import endpoint_state_file, find_endpoint, log_file
from phi3_ops.errors import OpsError
from tiny_endpoint import HANG_S, KEY


def test_start_find_and_stop(tiny_model_dir, tmp_path, started):
    lines: list[str] = []
    running = start_endpoint(tiny_model_dir, tmp_path, "tuned", key=KEY, progress=lines.append)
    try:
        assert find_endpoint(tmp_path, "tuned") == running
        assert running.runtime.startswith("OpenVINO, fp32, ")
        loading, *_, serving, _ = log_file(tmp_path, "tuned").read_text().splitlines()
        assert loading == f"loading {tiny_model_dir}" and lines[0] == loading
        assert serving == f"serving {tiny_model_dir} with {running.runtime}"
        assert not any(line.startswith("20") for line in lines)
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
        OpsError, match="the endpoint 'tuned' did not start: .*none does not exist"
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


STARTING = """
import sys, time
from pathlib import Path
from phi3_ops.endpoint.registration import own_endpoint_name

with own_endpoint_name(Path(sys.argv[3]), "base"):
    print("loading", flush=True)
    time.sleep(60)
"""


def test_an_endpoint_that_is_still_starting_is_stopped_too(tmp_path):
    """The command that started it was killed, so nobody waits for it."""
    command = [sys.executable, "-c", STARTING, "phi3_ops", "endpoint", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        assert not stop_endpoint(tmp_path, "base")
        assert stop_all_endpoints(tmp_path / "other") == []
        assert process.poll() is None
        assert stop_all_endpoints(tmp_path) == ["base"]
        assert gone(process.pid)
    assert stop_all_endpoints(tmp_path) == []
