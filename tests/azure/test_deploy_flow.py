"""`phi3 deploy --flow`: its requests, the role, and that only an answer brings traffic."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import requests

from azure_fixtures import WORKSPACE, plant
from flow_uploads import copy_as_version
from phi3_ops import paths
from phi3_ops.azure import roles
from phi3_ops.azure.roles import CONNECTION_SECRETS, assignment_name
from phi3_ops.deploy.model import SMOKE_QUESTION

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
ENDPOINT = "phi3-endpoint-chat"
KEY = "a-key-of-the-model's-endpoint"
# Replaces the image: it answers like promptflow's serving app, from the files of the mounted flow.
STAND_IN = """
import json, os, pathlib
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    global flow, config
    (flow,) = pathlib.Path(os.environ["AZUREML_MODEL_DIR"]).iterdir()
    assert (flow / "flow.dag.yaml").is_file()
    config = dict(part.split("=") for part in os.environ["PRT_CONFIG_OVERRIDE"].split(","))

@rawhttp
def run(request):
    asked = json.loads(request.get_data())
    if "question" not in asked:
        error = {"error": {"code": "UserError", "message": "question is missing"}}
        return AMLResponse(json.dumps(error), 400)
    answer = f"{flow.name} in {config['deployment.workspace_name']}: {asked['question']}"
    return AMLResponse(json.dumps({"answer": ANSWER}), 200)
"""


@pytest.fixture
def stand_in(tmp_path):
    """Return a function that writes the container's script with an answer."""
    (tmp_path / "stand-in").mkdir()

    def write(answer="answer"):
        text = STAND_IN.replace("ANSWER", answer)
        (tmp_path / "stand-in" / "score.py").write_text(text)
        return tmp_path / "stand-in"

    return write


@pytest.fixture
def flows(serving, stand_in):
    """An Azure whose workspace has the connection of the flows."""
    properties = {"category": "CustomKeys", "authType": "CustomKeys", "target": "_"}
    plant(serving.azure, "connections/phi3", {"properties": properties})
    serving.azure.stand_ins["mlflow"] = stand_in()  # "mlflow" is the fake's name for a built image
    return serving


@pytest.fixture
def flow(tmp_path):
    """A copy of the chat flow, to change."""
    copy_as_version(paths.FLOWS / "chat", tmp_path / "chat")
    return tmp_path / "chat"


def deployed(phi3, *words):
    done = phi3("deploy", "--drain", 0, "--canary", "50,100", *words)
    assert done.code == 0, done.err
    return done.out


def names(serving):
    return [document["name"] for document in serving.of("onlineEndpoints/deployments")]


def traffic(serving):
    (endpoint,) = serving.of("onlineEndpoints")
    return {name: share for name, share in endpoint["properties"]["traffic"].items() if share}


def test_a_flow_gets_an_endpoint_of_its_own_and_answers(flows, phi3, monkeypatch):
    monkeypatch.setattr(roles, "SPREAD_POLL_S", 0.0)
    flows.azure.roles_lag = 1  # the new role has not reached every part of Azure yet
    out = deployed(phi3, "--flow", "chat")
    assert f"chat in {WORKSPACE}: {SMOKE_QUESTION}" in out
    assert f"role {CONNECTION_SECRETS.name}" in out
    (endpoint,) = flows.of("onlineEndpoints")
    assert endpoint["name"] == ENDPOINT
    (identity,) = endpoint["identity"]["userAssignedIdentities"]
    assert identity.endswith("/phi3-identity")
    key = flows.keys[0]
    uri = endpoint["properties"]["scoringUri"]
    headers = {"authorization": f"Bearer {key}"}
    answer = requests.post(uri, json={"question": "Hi"}, headers=headers, timeout=30)
    assert answer.json() == {"answer": f"chat in {WORKSPACE}: Hi"}
    assert "nothing to change" in deployed(phi3, "--flow", "chat")


def test_the_identity_gets_the_role_once_under_a_hashed_name(flows, phi3):
    before = {document["name"] for document in flows.of("roleAssignments")}
    deployed(phi3, "--flow", "chat")
    (new,) = [
        document for document in flows.of("roleAssignments") if document["name"] not in before
    ]
    properties = new["properties"]
    (identity,) = flows.of("userAssignedIdentities")
    assert properties["principalId"] == identity["properties"]["principalId"]
    assert properties["roleDefinitionId"].endswith(CONNECTION_SECRETS.id)
    assert properties["scope"].endswith(f"/workspaces/{WORKSPACE}")
    expected = assignment_name(
        properties["scope"], properties["roleDefinitionId"], properties["principalId"]
    )
    assert new["name"] == expected
    assert phi3("down", "--yes").code == 0  # it deletes the assignment
    assert new["name"] not in {document["name"] for document in flows.of("roleAssignments")}


SENT = {
    "flow-role": "/roleAssignments/",
    "flow-model": "/models/",
    "flow-environment": "/environments/",
    "flow-endpoint": ENDPOINT,
    "flow-deployment": "/deployments/",
}


def test_the_requests(flows, phi3):
    """Compare them with the golden files; PHI3_WRITE_GOLDEN=1 writes the files."""
    flows.azure.fail_deployment()
    assert phi3("deploy", "--flow", "chat").code == 1
    puts = [write for write in flows.azure.writes() if write.method == "PUT"]
    for name, path in SENT.items():
        pattern = f"{path}[^/]*(/versions/[^/]+)?$"
        request = masked(next(put for put in puts if re.search(pattern, put.path)))
        file = GOLDEN / f"{name}.json"
        if os.environ.get("PHI3_WRITE_GOLDEN"):
            file.write_text(json.dumps(request, indent=2) + "\n")
        assert request == json.loads(file.read_text()), name


# Patterns of hashes, random names and dates, and their replacements.
VOLATILE = (
    (r"11111111-1111-4111-8111-111111111111", "<subscription>"),
    (r"\d{4}-\d\d-\d\d(?=\")", "<date>"),
    (r"(?<!roleDefinitions/)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=[/\"])", "<uuid>"),
    (r"\bd-[0-9a-f]{10}\b", "d-<hash>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{10})\b", "<hash>"),
)


def masked(request):
    text = json.dumps({"method": request.method, "path": request.path, "body": request.body})
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return json.loads(text)


def test_the_image_is_built_from_the_wheel_and_no_key_is_uploaded(flows, phi3, tmp_path):
    from fake_azure.storage import container_of

    from phi3_ops.pf.connections import save_connection

    save_connection("phi3", {"endpoint": "http://127.0.0.1:9/score"}, KEY)
    deployed(phi3, "--flow", "chat")
    (environment,) = flows.of("environments/versions")
    build = environment["properties"]["build"]
    folder = re.search(r"LocalUpload/[^?]*", build["contextUri"])[0].rstrip("/")
    assert flows.azure.storage.fetch(container_of(WORKSPACE), folder, tmp_path / "context")
    names = {path.name for path in (tmp_path / "context").rglob("*") if path.is_file()}
    wheel = next(name for name in names if name.endswith(".whl"))
    assert names == {wheel, "Dockerfile", "app.py", "requirements.txt"}
    for path in (tmp_path / "context").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_a_key_in_the_flow_is_not_uploaded(flows, phi3, flow):
    from phi3_ops.pf.connections import save_connection

    save_connection("phi3", {"endpoint": "http://127.0.0.1:9/score"}, KEY)
    (flow / "notes.txt").write_text(KEY)
    done = phi3("deploy", "--flow", flow)
    assert done.code == 1
    assert "notes.txt contains the key of phi3" in done.err
    assert flows.of("models/versions") == []


def test_a_changed_flow_gets_traffic_in_steps_and_the_old_one_is_deleted(flows, phi3, flow):
    deployed(phi3, "--flow", flow)
    (old,) = names(flows)
    text = (flow / "flow.dag.yaml").read_text()
    (flow / "flow.dag.yaml").write_text(text.replace("version: 1.0.0", "version: 1.0.1"))
    out = deployed(phi3, "--flow", flow)
    (new,) = names(flows)
    assert new != old
    assert f"traffic: {old} 50 %, {new} 50 %" in out
    assert traffic(flows) == {new: 100}
    (deployment,) = flows.of("onlineEndpoints/deployments")
    assert deployment["tags"]["version"] == "1.0.1"


def test_a_flow_that_does_not_answer_gets_no_traffic(flows, phi3, flow, stand_in):
    deployed(phi3, "--flow", flow)
    (old,) = names(flows)
    stand_in("''")
    with (flow / "flow.dag.yaml").open("a") as file:
        file.write("# another\n")
    done = phi3("deploy", "--flow", flow)
    assert done.code == 1
    assert "gave an empty answer" in done.err
    assert traffic(flows) == {old: 100}


def test_an_error_of_the_flow_is_reported(flows, phi3, flow):
    text = (flow / "flow.dag.yaml").read_text().replace("question:", "ask:", 1)
    (flow / "flow.dag.yaml").write_text(text.replace("inputs.question", "inputs.ask"))
    done = phi3("deploy", "--flow", flow)
    assert done.code == 1
    assert "smoke test of d-" in done.err and "question is missing" in done.err
    assert traffic(flows) == {}


def test_a_dry_run_writes_nothing(flows, phi3):
    flows.azure.requests.clear()
    out = deployed(phi3, "--flow", "chat", "--dry-run")
    assert ENDPOINT in out and CONNECTION_SECRETS.name in out
    assert flows.azure.writes() == []


def test_without_the_workspaces_connection_nothing_is_deployed(serving, phi3):
    done = phi3("deploy", "--flow", "chat")
    assert done.code == 1
    assert "the workspace has no connection 'phi3'" in done.err
    assert "phi3 connect --azure" in done.err
    assert serving.of("onlineEndpoints") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--flow", "eval"), "has no default"),
        (("--flow", "nothing"), "nothing is not a flow"),
        (("--flow", "chat", "--endpoint", "9chat"), "'9chat' is not a valid name"),
        (("--flow", "chat", "--endpoint", "phi3-endpoint"), "is the model's endpoint"),
        (("--endpoint", "other"), "--endpoint needs --flow"),
    ],
)
def test_bad_input_is_one_line(flows, phi3, words, message):
    done = phi3("deploy", *words)
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert message in line


def test_missing_quota_stops_before_anything_is_created(flows, phi3, flow):
    flows.azure.quota("standardDSv2Family", 4, 2)
    done = phi3("deploy", "--flow", flow)
    assert done.code == 1
    assert "flow: 6 cores of standardDSv2Family are missing in eastus2" in done.err
    assert not any("/onlineEndpoints/" in write.path for write in flows.azure.writes())
