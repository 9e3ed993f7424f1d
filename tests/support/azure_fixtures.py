"""A fake Azure for each test, and the product's commands run against it in this process."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

GROUP, WORKSPACE = "rg", "ws-one"
TODAY = date(2026, 12, 1)  # before the end of Prompt flow's service


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def one_line(done: Done, *texts: str) -> None:
    """Assert that a command failed with one line that contains all of these texts."""
    assert done.code == 1, done.out
    line = done.err.strip().splitlines()[-1]  # above it, the SDK's own progress of an upload
    assert line.startswith("phi3 ") and "Error:" not in line.split(": ")[1], done.err
    for text in texts:
        assert text in line
    assert "Traceback" not in done.err


def succeed(done: Done) -> str:
    """Assert that a command succeeded, and return its output."""
    assert done.code == 0, done.err
    return done.out


@pytest.fixture(scope="session")
def one_azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The fake Azure of this session. It is started once, because the start takes seconds."""
    from fake_azure import FakeAzure

    with FakeAzure(tmp_path_factory.mktemp("azure")) as azure:
        yield azure


@pytest.fixture
def azure(one_azure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    """An empty Azure that this process's clients call, in an empty current folder."""
    from azure.ai.ml.constants._common import LROConfigurations

    from phi3_ops.publish import retirement

    one_azure.reset()
    one_azure.refused_hosts.clear()
    _forget_clients()
    settings = {
        "AZURE_RESOURCE_GROUP": GROUP,
        "AZUREML_WORKSPACE_NAME": WORKSPACE,
        "PHI3_OWNER": "me",
    }
    for name, value in (one_azure.environment() | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PHI3_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LROConfigurations, "SLEEP_TIME", 0.05)  # the SDK's own is 5 s
    monkeypatch.setattr(retirement, "today", lambda: TODAY)
    yield one_azure
    assert not one_azure.refused_hosts, one_azure.refused_hosts  # no other host was called


def _forget_clients() -> None:
    """Drop the clients, with their sign-ins, that promptflow keeps for the life of the process."""
    module = sys.modules.get("promptflow.azure._restclient.service_caller_factory")
    if module:  # it is not imported here, because it reads the environment at import
        module._FlowServiceCallerFactory.caller_cache_by_workspace_id.clear()


@pytest.fixture(scope="session")
def snapshot() -> dict[str, Any]:
    """The resources that the first `phi3 provision` of this session created."""
    return {}


@pytest.fixture
def provisioned(azure: Any, phi3: Any, snapshot: dict[str, Any]) -> Any:
    """An Azure in which `phi3 provision` has run, with an empty list of requests."""
    if not snapshot:
        done = phi3("provision", "--create-group", "--yes")
        assert done.code == 0, done.err
        snapshot.update(azure.resources)
    azure.resources.update(copy.deepcopy(snapshot))
    azure.requests.clear()
    return azure


def plant(azure: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create a resource in the workspace, or elsewhere, without a request; return its document."""
    from fake_azure import arm

    group = f"/subscriptions/{azure.subscription}/resourceGroups/{GROUP}"
    workspace = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
    path_of_resource = arm.ArmPath(
        f"{group}{path}" if path.startswith("/") else f"{workspace}/{path}"
    )
    document = arm.complete(azure, path_of_resource, None, body)
    document["properties"].setdefault("provisioningState", "Succeeded")
    azure.resources[path_of_resource.key] = document
    return document


@pytest.fixture
def phi3(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `phi3 …` in this process, because importing the SDK takes seconds."""
    from phi3_ops.cli import main

    def run(*words: Any) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run


class KilledError(Exception):
    """Stands for the end of the process: after it no request leaves and no answer arrives."""


@pytest.fixture
def kill_after(azure, monkeypatch):
    """Stop all traffic of this process after a number of writes; 0 lets it flow again.

    A second argument is called after each write.
    """
    from requests.adapters import HTTPAdapter

    state: dict[str, Any] = {"left": 0, "dead": False}
    send = HTTPAdapter.send

    def guarded(adapter, request, *args, **kwargs):
        if "://127.0.0.1" in request.url:  # the fake's own traffic, in the same process
            return send(adapter, request, *args, **kwargs)
        if state["dead"]:
            raise KilledError
        answer = send(adapter, request, *args, **kwargs)
        if state["dead"]:
            raise KilledError
        return answer

    def written(request):
        state["left"] -= 1
        state["dead"] = state["left"] == 0
        state["then"](request)

    def plan(count, then=lambda request: None):
        state.update(left=count, dead=False, then=then)
        azure.on_write(written)

    monkeypatch.setattr(HTTPAdapter, "send", guarded)
    return plan
