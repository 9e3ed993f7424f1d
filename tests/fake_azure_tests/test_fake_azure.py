"""The fake Azure, driven by the unmodified clients: azure-ai-ml, azure-identity, azure-mgmt-*."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from fake_azure import FakeAzure

SIZE = "Standard_NC24ads_A100_v4"
FAMILY = "standardNCADSA100v4Family"
GROUP = "rg"
WORKSPACE = "ws"
SCORE = """
import json, os, pathlib, time

def init():
    folder = pathlib.Path(os.environ["AZUREML_MODEL_DIR"])
    global text
    text = next(folder.rglob("model.txt")).read_text()
    print("model loaded")

def run(data):
    request = json.loads(data)
    time.sleep(request.get("sleep", 0))
    return {"model": text, "mark": os.environ["MARK"], "inverse": 1 / request["x"]}
"""
STREAM = """
import time
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

def events():
    for number in range(3):
        yield f"data: {number}\\n\\n"
        time.sleep(0.5)

@rawhttp
def run(request):
    return AMLResponse(events(), 200, {"Content-Type": "text/event-stream"})
"""
TRAIN = """
import pathlib, sys
rows, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
print("rows:", rows.read_text())
(output / "inner").mkdir()
(output / "inner" / "model.txt").write_text("trained on " + rows.read_text())
pathlib.Path("outputs").mkdir()
pathlib.Path("outputs/metrics.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    with (
        FakeAzure(tmp_path_factory.mktemp("azure")) as azure,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in azure.environment().items():
            patch.setenv(name, value)
        azure.create_group(GROUP)
        yield azure
        assert set(azure.refused_hosts) <= {"example.com"}  # what the tests ask for themselves


@pytest.fixture(scope="module")
def credential(azure: FakeAzure) -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@pytest.fixture(scope="module")
def client(azure: FakeAzure, credential: Any) -> Any:
    """A client of a workspace that the SDK created."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Workspace

    client = MLClient(credential, azure.subscription, GROUP, WORKSPACE)
    workspace = Workspace(name=WORKSPACE, location=azure.region, tags={"owner": "me"})
    client.workspaces.begin_create(workspace).result()
    return client


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    files = {"train/main.py": TRAIN, "serve/score.py": SCORE, "stream/score.py": STREAM}
    for name, text in (files | {"rows.txt": "a"}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def environment(client: Any) -> Any:
    from azure.ai.ml.entities import Environment

    return client.environments.create_or_update(
        Environment(name="env", image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest")
    )


@pytest.fixture(scope="module")
def job(client: Any, source: Path, environment: Any) -> Any:
    """A job that has run."""
    from azure.ai.ml import Input, Output, command

    made = client.jobs.create_or_update(
        command(
            name="job1",
            code=str(source / "train"),
            command="python main.py ${{inputs.rows}} ${{outputs.model}}",
            inputs={"rows": Input(type="uri_file", path=str(source / "rows.txt"))},
            outputs={"model": Output(type="custom_model")},
            environment=environment,
            compute="gpu",
        )
    )
    client.jobs.stream(made.name)
    return client.jobs.get(made.name)


@pytest.fixture(scope="module")
def model(client: Any, job: Any) -> Any:
    from azure.ai.ml.entities import Model

    path = f"azureml://jobs/{job.name}/outputs/model"
    return client.models.create_or_update(Model(name="phi", path=path, type="custom_model"))


@pytest.fixture(scope="module")
def endpoint(client: Any, model: Any, environment: Any, source: Path) -> Any:
    """An endpoint whose deployment `blue` takes all the traffic."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    made = ManagedOnlineEndpoint(name="phi-endpoint", auth_mode="key", tags={"owner": "me"})
    client.online_endpoints.begin_create_or_update(made).result()
    deploy(client, deployment("blue", model, environment, source))
    return set_traffic(client, {"blue": 100})


def deployment(name: str, model: Any, environment: Any, source: Path, **changes: Any) -> Any:
    from azure.ai.ml.entities import (
        CodeConfiguration,
        ManagedOnlineDeployment,
        OnlineRequestSettings,
    )

    settings = {"max_concurrent_requests_per_instance": 8, "request_timeout_ms": 2000}
    code = CodeConfiguration(code=str(source / "serve"), scoring_script="score.py")
    given = {
        "name": name,
        "endpoint_name": "phi-endpoint",
        "model": model,
        "environment": environment,
        "code_configuration": code,
        "environment_variables": {"MARK": name},
        "request_settings": OnlineRequestSettings(**settings),
        "instance_type": SIZE,
        "instance_count": 1,
    }
    return ManagedOnlineDeployment(**given | changes)


def deploy(client: Any, made: Any) -> Any:
    return client.online_deployments.begin_create_or_update(made).result()


def set_traffic(client: Any, traffic: dict[str, int]) -> Any:
    endpoint = client.online_endpoints.get("phi-endpoint")
    endpoint.traffic, endpoint.mirror_traffic = traffic, {}
    return client.online_endpoints.begin_create_or_update(endpoint).result()


def score(client: Any, endpoint: Any, body: Any, key: str = "", **headers: str) -> Any:
    key = key or client.online_endpoints.get_keys(endpoint.name).primary_key
    sent = {
        "Authorization": f"Bearer {key}",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    return requests.post(endpoint.scoring_uri, json=body, headers=sent, timeout=30)


# Resources


def test_the_workspace_has_what_belongs_to_one(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import Workspace

    workspace = client.workspaces.get(WORKSPACE)
    assert workspace.tags["owner"] == "me"
    assert workspace.storage_account.lower() in azure.resources
    assert client.datastores.get_default().name == "workspaceblobstore"
    again = Workspace(name=WORKSPACE, location=azure.region, tags={"more": "yes"})
    assert client.workspaces.begin_create(again).result().tags["more"] == "yes"


def test_versions_are_counted_and_kept(client: Any, environment: Any) -> None:
    from azure.ai.ml.entities import Environment
    from azure.core.exceptions import HttpResponseError

    assert (environment.name, environment.version) == ("env", "1")
    assert client.environments.get("env", label="latest").version == "1"
    with pytest.raises(HttpResponseError, match="exists with another image"):
        client.environments.create_or_update(Environment(name="env", version="1", image="other:1"))


def test_compute(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import AmlCompute

    wanted = AmlCompute(
        name="gpu", size=SIZE, min_instances=0, max_instances=2, tier="low_priority"
    )
    client.compute.begin_create_or_update(wanted).result()
    sent = azure.writes()[-1]
    assert (sent.method, sent.path.rsplit("/", 1)[1]) == ("PUT", "gpu")
    assert sent.body["properties"]["properties"]["vmPriority"] == "LowPriority"
    found = client.compute.get("gpu")
    assert (found.provisioning_state, found.max_instances) == ("Succeeded", 2)
    client.compute.begin_delete("gpu").result()
    assert "gpu" not in [each.name for each in client.compute.list()]


def test_quota(client: Any, azure: FakeAzure) -> None:
    azure.quota(FAMILY, limit=48, used=24)
    found = {each.name["value"]: each for each in client.compute.list_usage()}
    assert (found[FAMILY].limit, found[FAMILY].current_value) == (48, 24)
    sizes = {each.name: each for each in client.compute.list_sizes()}
    assert (sizes[SIZE].family, sizes[SIZE].v_cp_us) == (FAMILY, 24)
    azure.quota(FAMILY, limit=1000)


def test_identity_and_roles(client: Any, azure: FakeAzure, credential: Any) -> None:
    from azure.core.exceptions import ResourceExistsError
    from azure.mgmt.authorization import AuthorizationManagementClient
    from azure.mgmt.msi import ManagedServiceIdentityClient

    identities = ManagedServiceIdentityClient(
        credential, azure.subscription
    ).user_assigned_identities
    identity = identities.create_or_update(GROUP, "uai", {"location": azure.region})
    authorization = AuthorizationManagementClient(credential, azure.subscription)
    scope = client.workspaces.get(WORKSPACE).storage_account
    query = "roleName eq 'Storage Blob Data Reader'"
    (role,) = authorization.role_definitions.list(scope, filter=query)
    wanted = {"role_definition_id": role.id, "principal_id": identity.principal_id}
    name = str(uuid.uuid4())
    for _ in range(2):  # the same again changes nothing
        authorization.role_assignments.create(scope, name, wanted)
    with pytest.raises(ResourceExistsError, match="RoleAssignmentExists"):
        authorization.role_assignments.create(scope, str(uuid.uuid4()), wanted)
    assert [each.name for each in authorization.role_assignments.list_for_scope(scope)] == [name]


def test_a_connection_keeps_its_secrets_to_itself(
    client: Any, azure: FakeAzure, credential: Any
) -> None:
    scope = f"/subscriptions/{azure.subscription}/resourceGroups/{GROUP}/providers"
    path = f"{scope}/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}/connections/phi3"
    token = credential.get_token("https://management.azure.com/.default").token
    body = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "target": "-",
        "credentials": {"keys": {"key": "hidden"}},
        "metadata": {"endpoint": "https://x", "azureml.flow.connection_type": "Custom"},
    }
    calls = [("PUT", ""), ("GET", ""), ("POST", "/listsecrets"), ("DELETE", ""), ("GET", "")]
    answers = [
        requests.request(
            method,
            f"https://management.azure.com{path}{end}",
            params={"api-version": "2024-04-01-preview"},
            headers={"Authorization": f"Bearer {token}"},
            json={"properties": body} if method == "PUT" else None,
            timeout=10,
        )
        for method, end in calls
    ]
    assert [each.status_code for each in answers] == [201, 200, 200, 200, 404]
    assert [("hidden" in each.text) for each in answers[:3]] == [False, False, True]


def test_a_group_lists_what_is_in_it_with_its_tags(
    client: Any, azure: FakeAzure, credential: Any
) -> None:
    from azure.mgmt.resource.resources import ResourceManagementClient

    manager = ResourceManagementClient(credential, azure.subscription)
    found = {each.type: each.tags for each in manager.resources.list_by_resource_group(GROUP)}
    assert found["Microsoft.MachineLearningServices/workspaces"]["owner"] == "me"
    manager.resource_groups.create_or_update("other", {"location": azure.region})
    assert manager.resource_groups.get("other").location == azure.region
    manager.resource_groups.begin_delete("other").result()
    assert "other" not in [each.name for each in manager.resource_groups.list()]


# Jobs and models


def test_a_job_runs_and_leaves_its_files(job: Any, azure: FakeAzure) -> None:
    assert job.status == "Completed"
    names = azure.storage.names(f"azureml-{WORKSPACE}", f"ExperimentRun/dcid.{job.name}")
    assert {name.rsplit("/", 1)[1] for name in names} == {"metrics.json", "std_log.txt"}


def test_a_job_that_fails(
    client: Any, environment: Any, azure: FakeAzure, capsys: pytest.CaptureFixture[str]
) -> None:
    from azure.ai.ml import command
    from azure.ai.ml.exceptions import JobException

    script = "python -c 'print(\"started\"); raise SystemExit(3)'"
    with pytest.raises(JobException, match="Exit status 3"):
        client.jobs.stream(
            client.jobs.create_or_update(
                command(command=script, environment=environment, compute="gpu")
            ).name
        )
    assert "started" in capsys.readouterr().out
    azure.fail_job(message="the node was preempted")
    made = client.jobs.create_or_update(
        command(command="true", environment=environment, compute="gpu")
    )
    with pytest.raises(JobException, match="preempted"):
        client.jobs.stream(made.name)


def test_a_catalog_fine_tuning_job(client: Any, source: Path, azure: FakeAzure) -> None:
    from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

    made = client.jobs.create_or_update(
        create_finetuning_job(
            model="azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
            task=FineTuningTaskType.CHAT_COMPLETION,
            training_data=str(source / "rows.txt"),
            validation_data=str(source / "rows.txt"),
            hyperparameters={"learning_rate": "0.00002"},
            output_model_name_prefix="phi-4-tuned",
            name="tuned",
            experiment_name="x",
        )
    )
    assert status_of(client, made.name) == "Completed"
    assert azure.storage.names(f"azureml-blobstore-{WORKSPACE}", "azureml/tuned")


def status_of(client: Any, job: str) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status = client.jobs.get(job).status
        if status in ("Completed", "Failed", "Canceled"):
            return status
        time.sleep(0.05)
    raise AssertionError(f"{job} is {status}")


def test_a_model_is_where_its_job_left_it(client: Any, model: Any, azure: FakeAzure) -> None:
    assert client.models.get("phi", label="latest").version == "1"
    assert model.path.endswith("/datastores/workspaceblobstore/paths/azureml/job1/model/")
    names = azure.storage.names(f"azureml-blobstore-{WORKSPACE}", "azureml/job1/model")
    assert names == ["azureml/job1/model/inner/model.txt"]


# Endpoints


def test_scoring(client: Any, endpoint: Any) -> None:
    answer = score(client, endpoint, {"x": 2})
    expected = {"model": "trained on a", "mark": "blue", "inverse": 0.5}
    assert (answer.status_code, answer.json()) == (200, expected)
    assert answer.headers["x-ms-request-id"]


@pytest.mark.parametrize(
    ("status", "body", "key", "headers"),
    [
        (401, {"x": 1}, "wrong", {}),
        (404, {"x": 1}, "", {"azureml_model_deployment": "nowhere"}),
        (408, {"x": 1, "sleep": 3}, "", {}),
        (424, {"x": 0}, "", {"azureml_model_deployment": "blue"}),
    ],
)
def test_scoring_refuses(
    client: Any, endpoint: Any, status: int, body: Any, key: str, headers: dict[str, str]
) -> None:
    answer = score(client, endpoint, body, key, **headers)
    assert answer.status_code == status
    assert answer.headers.get("ms-azureml-model-error-statuscode") == (
        "500" if status == 424 else None
    )


def test_keys(client: Any, endpoint: Any) -> None:
    before = client.online_endpoints.get_keys(endpoint.name)
    client.online_endpoints.begin_regenerate_keys(endpoint.name, key_type="primary").result()
    after = client.online_endpoints.get_keys(endpoint.name)
    tried = [before.primary_key, after.primary_key, before.secondary_key]
    found = [score(client, endpoint, {"x": 1}, key).status_code for key in tried]
    assert found == [401, 200, 200]


@pytest.mark.parametrize("traffic", [{"blue": 50}, {"nowhere": 100}, {"blue": 150, "green": -50}])
def test_traffic_is_checked(client: Any, endpoint: Any, traffic: dict[str, int]) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match="BadArgument"):
        set_traffic(client, traffic)


def test_a_second_deployment_takes_over_under_load(
    client: Any, endpoint: Any, model: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    green = deploy(client, deployment("green", model, environment, source))
    assert green.provisioning_state == "Succeeded"
    answer = score(client, endpoint, {"x": 1}, azureml_model_deployment="green")
    assert answer.json()["mark"] == "green"
    key = client.online_endpoints.get_keys(endpoint.name).primary_key
    answers: list[Any] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answers.append(score(client, endpoint, {"x": 1, "sleep": 0.1}, key))

    mirrored = client.online_endpoints.get(endpoint.name)
    mirrored.mirror_traffic = {"green": 50}
    client.online_endpoints.begin_create_or_update(mirrored).result()
    before = azure.scored["green"]
    for _ in range(20):
        assert score(client, endpoint, {"x": 1}, key).json()["mark"] == "blue"
    assert before < azure.scored["green"] < before + 20
    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    set_traffic(client, {"blue": 50, "green": 50})
    time.sleep(1)
    set_traffic(client, {"green": 100})
    client.online_deployments.begin_delete("blue", endpoint.name).result()
    stop.set()
    for thread in threads:
        thread.join()
    assert {each.status_code for each in answers} == {200}
    assert {each.json()["mark"] for each in answers} == {"blue", "green"}
    deploy(client, deployment("blue", model, environment, source))
    set_traffic(client, {"blue": 100})
    client.online_deployments.begin_delete("green", endpoint.name).result()


def test_live_traffic_stops_a_deletion(client: Any, endpoint: Any) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError, match="100 % of the traffic"):
        client.online_deployments.begin_delete("blue", endpoint.name)


def test_a_container_that_dies_fails_its_deployment(
    client: Any, endpoint: Any, model: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    from azure.core.exceptions import HttpResponseError

    azure.fail_deployment("/deployments/red", "no such model")
    with pytest.raises(HttpResponseError, match="crashed"):
        deploy(client, deployment("red", model, environment, source))
    assert client.online_deployments.get("red", endpoint.name).provisioning_state == "Failed"
    assert "no such model" in client.online_deployments.get_logs("red", endpoint.name, lines=5)
    assert score(client, endpoint, {"x": 1}).status_code == 200
    client.online_deployments.begin_delete("red", endpoint.name).result()


def test_a_deployment_over_quota_fails(
    client: Any, endpoint: Any, model: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    from azure.core.exceptions import HttpResponseError

    azure.quota(FAMILY, limit=24, used=10)
    with pytest.raises(HttpResponseError, match="OutOfQuota"):
        deploy(client, deployment("red", model, environment, source))
    azure.quota(FAMILY, limit=1000)
    client.online_deployments.begin_delete("red", endpoint.name).result()


def test_a_stand_in_serves_for_an_image(
    client: Any, endpoint: Any, model: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    azure.stand_ins[environment.image] = source / "serve"
    deploy(client, deployment("image", model, environment, source, code_configuration=None))
    answer = score(client, endpoint, {"x": 4}, azureml_model_deployment="image")
    assert answer.json()["inverse"] == 0.25
    client.online_deployments.begin_delete("image", endpoint.name).result()


def test_a_stream_arrives_as_it_is_made(
    client: Any, endpoint: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    azure.stand_ins[environment.image] = source / "stream"
    deploy(client, deployment("stream", None, environment, source, code_configuration=None))
    key = client.online_endpoints.get_keys(endpoint.name).primary_key
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "stream"}
    with requests.post(
        endpoint.scoring_uri, json={}, headers=headers, stream=True, timeout=9
    ) as answer:
        times = [time.monotonic() for line in answer.iter_lines() if line]
    assert len(times) == 3
    assert times[2] - times[0] > 0.5
    client.online_deployments.begin_delete("stream", endpoint.name).result()


def test_what_is_being_changed_is_left_alone(
    client: Any, endpoint: Any, model: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    from azure.core.exceptions import ResourceExistsError

    azure.polls = 5
    going = client.online_deployments
    made = going.begin_create_or_update(deployment("slow", model, environment, source))
    with pytest.raises(ResourceExistsError, match="is being changed"):
        going.begin_create_or_update(deployment("slow", model, environment, source))
    made.result()
    deletions = [going.begin_delete("slow", endpoint.name) for _ in range(2)]
    azure.polls = 1
    assert [each.result() for each in deletions] == [None, None]


def test_an_endpoint_goes_with_its_deployments(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azure.core.exceptions import ResourceNotFoundError

    made = ManagedOnlineEndpoint(name="short-lived", auth_mode="aad_token")
    client.online_endpoints.begin_create_or_update(made).result()
    client.online_endpoints.begin_delete("short-lived").result()
    with pytest.raises(ResourceNotFoundError):
        client.online_endpoints.get("short-lived")
    assert not [key for key in azure.resources if "short-lived" in key]


# Faults and the watch over what is called


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
    # What the client itself retries: a 429, a broken connection, a poll that is lost.
    azure.fail("PUT", "/computes/faulty", 429, headers={"retry-after": "0"})
    azure.fail("GET", "computeOperationsStatus", 503, headers={"retry-after": "0"})
    client.compute.begin_create_or_update(wanted).result()
    azure.fail("GET", "/computes/faulty", 0)
    assert client.compute.get("faulty").provisioning_state == "Succeeded"


def test_a_hook_sees_each_write_after_it_took_effect(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import AmlCompute

    seen: list[bool] = []
    azure.on_write(lambda request: seen.append(request.path.lower() in azure.resources))
    client.compute.begin_create_or_update(AmlCompute(name="hooked", size=SIZE)).result()
    client.compute.get("hooked")
    azure.on_write(None)
    assert seen == [True]


def test_nothing_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyError), FakeAzure(tmp_path) as azure:
        children = [azure.storage.process]
        raise KeyError
    assert not list(tmp_path.iterdir())
    assert all(child.poll() is not None for child in children)
    assert set(threading.enumerate()) <= before | {threading.main_thread()}
    assert os.environ["HTTPS_PROXY"] != azure.environment()["HTTPS_PROXY"]
