"""`phi3 flow check`: the connection, the endpoint, and the flow in a clean virtual environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

from azure_fixtures import GROUP, plant
from echo_endpoint import KEY
from phi3_ops.flows.lock import lock_flows
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish import clean_run
from phi3_ops.publish.check import check_flow

CLOSED = "http://127.0.0.1:9/score"


@pytest.fixture
def layered(monkeypatch):
    """New environments see this one's packages and use no index, so that they take only seconds."""

    def create(venv, _):
        words = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        subprocess.run(words, check=True, timeout=60)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "this.pth").write_text(sysconfig.get_path("purelib"))
        return venv / "bin" / "python"

    monkeypatch.setattr(clean_run, "clean_python", create)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def check(phi3, home, *words):
    lock_flows(home)
    return phi3("flow", "check", "chat", "--folder", home, *words)


def refused(phi3, home, *words):
    done = check(phi3, home, *words)
    assert done.code == 1 and "is ready" not in done.out
    assert KEY not in done.out + done.err
    (line,) = done.err.strip().splitlines()
    return line


def test_a_flow_that_is_ready(layered, endpoint, phi3, home):
    done = check(phi3, home, "--local")
    assert done.code == 0, done.err
    assert "connection 'phi3' exists; its endpoint answers in " in done.out
    assert "it runs: answer: Who founded Microsoft?" in done.out
    assert "chat-v1.0.0 is ready to run on this machine\nnext: phi3 flow upload chat" in done.out
    assert len(endpoint.requests) == 2  # the probe, and the flow
    assert KEY not in done.out


def test_requirements_that_cannot_be_installed(layered, endpoint, phi3, home):
    (home / "chat" / "requirements.txt").write_text("phi3-no-such-package==1\n")
    line = refused(phi3, home, "--local")
    assert "pip install -r requirements.txt failed: ERROR: " in line
    assert "phi3-no-such-package==1" in line


def test_a_flow_that_fails(layered, endpoint, phi3, home):
    (home / "chat" / "samples.jsonl").write_text('{"question": "fail"}\n')
    line = refused(phi3, home, "--local")
    assert "the flow in a clean environment failed: " in line


def test_an_installation_has_a_limit(layered, endpoint, phi3, home):
    line = refused(phi3, home, "--local", "--timeout", "0.001")
    assert "took more than" in line and "--timeout" in line


@pytest.mark.slow  # installs prompt flow from the index
@pytest.mark.parametrize("name", ["chat", "eval"])
def test_the_staged_requirements_alone_are_enough(endpoint, phi3, name):
    done = phi3("flow", "check", name, "--local")
    assert done.code == 0, done.err
    assert f"{name}-v" in done.out and "is ready" in done.out


def test_a_flow_without_an_endpoint_runs_too(monkeypatch, home):
    (home / "chat" / "flow.dag.yaml").write_text("inputs: {}\nnodes: []\n")
    monkeypatch.setattr("phi3_ops.publish.check.run_clean", lambda *args, **kw: {"a": "x" * 100})
    lines = []
    check_flow(home / "chat", lambda name: pytest.fail(name), lines.append, limit_s=1)
    assert lines == ["no node uses an endpoint", f"it runs: a: {'x' * 79}…"]


# -- the connection --------------------------------------------------------------------------------


def test_an_endpoint_that_does_not_answer(phi3, home):
    save_connection("phi3", {"endpoint": CLOSED, "max_attempts": "1"}, KEY)
    line = refused(phi3, home, "--local")
    delete_connection("phi3")
    assert "the connection 'phi3': " in line


def test_no_local_connection(phi3, home):
    assert "the connection 'phi3' does not exist" in refused(phi3, home, "--local")


GOOD = {
    "category": "CustomKeys",
    "authType": "CustomKeys",
    "target": "_",
    "metadata": {"endpoint": CLOSED, "azureml.flow.connection_type": "Custom"},
    "credentials": {"keys": {"key": KEY}},
}


@pytest.fixture
def workspace(azure):
    """A workspace; a function that sets its connection."""
    azure.create_group(GROUP)
    plant(azure, "", {"properties": {}})

    def put(**changes):
        plant(azure, "connections/phi3", {"properties": {**GOOD, **changes}})

    return put


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "ws-one has no connection 'phi3'. Create it with `phi3 connect --azure`."),
        ({"authType": "ApiKey"}, "has the authType ApiKey. A flow needs CustomKeys."),
        ({"category": "ApiKey"}, "has the category ApiKey. A flow needs CustomKeys."),
        ({"metadata": {}}, "has no `endpoint`"),
        ({"credentials": {"keys": {}}}, "has no `key`"),
        ({"credentials": {"keys": {"key": "<your-key>"}}}, "is still the placeholder"),
    ],
)
def test_a_connection_of_the_project_that_no_flow_can_use(workspace, phi3, home, changes, message):
    if changes is not None:
        workspace(**changes)
    assert message in refused(phi3, home)


def test_the_projects_connection_is_used(layered, workspace, endpoint, phi3, home):
    delete_connection("phi3")  # so that the local store does not have it
    workspace(metadata={**GOOD["metadata"], "endpoint": endpoint.url})
    done = check(phi3, home)
    assert done.code == 0, done.err
    assert len(endpoint.requests) == 2
