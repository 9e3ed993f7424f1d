"""Planned faults, refused hosts, callbacks, and the end of the fake."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from fake_azure import FakeAzure

SIZE = "Standard_NC24ads_A100_v4"


def test_another_host_is_refused(azure: FakeAzure) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.com", timeout=10)
    assert "example.com" in azure.refused_hosts


def test_a_request_without_a_token_is_refused(azure: FakeAzure) -> None:
    answer = requests.get("https://management.azure.com/subscriptions/x", timeout=10)
    assert answer.status_code == 401


def test_planned_faults(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import AmlCompute
    from azure.core.exceptions import HttpResponseError

    wanted = AmlCompute(name="faulty", size=SIZE)
    azure.fail("PUT", "/computes/faulty", 403, code="AuthorizationFailed")
    with pytest.raises(HttpResponseError, match="AuthorizationFailed"):
        client.compute.begin_create_or_update(wanted)
    azure.fail_operation("/computes/faulty", "QuotaExceeded", "no cores are left")
    with pytest.raises(HttpResponseError, match="no cores are left"):
        client.compute.begin_create_or_update(wanted).result()
    # The client retries a 429, a broken connection and a lost poll.
    azure.fail("PUT", "/computes/faulty", 429, headers={"retry-after": "0"})
    azure.fail("GET", "computeOperationsStatus", 503, headers={"retry-after": "0"})
    client.compute.begin_create_or_update(wanted).result()
    azure.fail("GET", "/computes/faulty", 0)
    assert client.compute.get("faulty").provisioning_state == "Succeeded"


def test_the_callback_runs_after_each_write_took_effect(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import AmlCompute

    seen: list[bool] = []
    azure.on_write(lambda request: seen.append(request.path.lower() in azure.resources))
    client.compute.begin_create_or_update(AmlCompute(name="hooked", size=SIZE)).result()
    client.compute.get("hooked")
    azure.on_write(None)
    assert seen == [True]


def test_no_process_thread_or_file_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyError), FakeAzure(tmp_path) as azure:
        children = [azure.storage.process]
        raise KeyError
    assert not list(tmp_path.iterdir())
    assert all(child.poll() is not None for child in children)
    assert set(threading.enumerate()) <= before | {threading.main_thread()}
    assert os.environ["HTTPS_PROXY"] != azure.environment()["HTTPS_PROXY"]
