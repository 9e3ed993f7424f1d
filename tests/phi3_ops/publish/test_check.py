"""`phi3 flow check`: the connection, the endpoint, and the flow in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

from azure_fixtures import GROUP, plant
from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.lock import lock_flows
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish import check as check_module
from phi3_ops.publish.check import sample_row

CLOSED = "http://127.0.0.1:9/score"


@pytest.fixture
def endpoint():
    with echo_endpoint() as endpoint:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, KEY)
        yield endpoint
        delete_connection("phi3")


@pytest.fixture
def home(tmp_path):
    """A folder with the chat flow, to change and to lock."""
    copy_flow(paths.FLOWS / "chat", tmp_path / "flows" / "chat")
    return tmp_path / "flows"


@pytest.fixture
def layered(monkeypatch):
    """New environments see this one's packages, and no index is asked: an installation takes seconds."""

    def create(venv, _):
        words = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        subprocess.run(words, check=True, timeout=60)
        (site,) = venv.glob("lib/python*/site-packages")
        (site / "this.pth").write_text(sysconfig.get_path("purelib"))
        return venv / "bin" / "python"

    monkeypatch.setattr(check_module, "clean_python", create)
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
    assert "connection 'phi3' is there; its endpoint answers in " in done.out
    assert "it runs: answer: Who founded Microsoft?" in done.out
    assert "chat-v1.0.0 is ready" in done.out
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


# -- the connection --------------------------------------------------------------------------------


def test_an_endpoint_that_does_not_answer(phi3, home):
    save_connection("phi3", {"endpoint": CLOSED, "max_attempts": "1"}, KEY)
    line = refused(phi3, home, "--local")
    delete_connection("phi3")
    assert "the connection 'phi3': " in line


def test_no_connection_here(phi3, home):
    assert "the connection 'phi3' does not exist" in refused(phi3, home, "--local")


GOOD = {
    "category": "CustomKeys",
    "authType": "CustomKeys",
    "target": "_",
    "metadata": {"endpoint": CLOSED, "azureml.flow.connection_type": "Custom"},
    "credentials": {"keys": {"key": KEY}},
}


@pytest.fixture
def project(azure):
    """A workspace; takes its connection."""
    azure.create_group(GROUP)
    plant(azure, "", {"properties": {}})

    def put(**changes):
        plant(azure, "connections/phi3", {"properties": {**GOOD, **changes}})

    return put


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (None, "ws-one has no connection 'phi3'. Write it with `phi3 connect --azure`."),
        ({"authType": "ApiKey"}, "has the authType ApiKey. A flow needs CustomKeys."),
        ({"category": "ApiKey"}, "has the category ApiKey. A flow needs CustomKeys."),
        ({"metadata": {}}, "has no `endpoint`"),
        ({"credentials": {"keys": {}}}, "has no `key`"),
        ({"credentials": {"keys": {"key": "<your-key>"}}}, "is still the placeholder"),
    ],
)
def test_a_connection_of_the_project_that_no_flow_can_use(project, phi3, home, changes, told):
    if changes is not None:
        project(**changes)
    assert told in refused(phi3, home)


def test_the_projects_connection_is_the_one_that_is_used(layered, project, endpoint, phi3, home):
    delete_connection("phi3")  # it is not in the store here
    project(metadata={**GOOD["metadata"], "endpoint": endpoint.url})
    done = check(phi3, home)
    assert done.code == 0, done.err
    assert len(endpoint.requests) == 2


# -- what it runs with -----------------------------------------------------------------------------


def test_inputs_are_the_first_sample_then_the_defaults(home):
    flow = home / "chat"
    (flow / "samples.jsonl").write_text('{"question": "one"}\n{"question": "two"}\n')
    assert sample_row(flow) == {"question": "one", "chat_history": []}
    (flow / "samples.jsonl").unlink()
    assert sample_row(flow) == {"question": "Who founded Microsoft?", "chat_history": []}


def test_an_input_without_a_value_is_named(tmp_path):
    copy_flow(paths.FLOWS / "eval", tmp_path / "eval")
    (tmp_path / "eval" / "samples.jsonl").write_text('{"answer": "x"}\n')
    with pytest.raises(OpsError, match="'ground_truth' has no default"):
        sample_row(tmp_path / "eval")
