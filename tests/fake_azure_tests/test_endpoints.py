"""Online endpoints: scoring, keys, traffic, deployments that fail, streams."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from fake_azure import FakeAzure

SIZE = "Standard_NC24ads_A100_v4"
FAMILY = "standardNCADSA100v4Family"


@pytest.fixture(scope="module")
def endpoint(client: Any, model: Any, environment: Any, source: Path) -> Any:
    """An endpoint whose deployment `blue` takes all the traffic."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    definition = ManagedOnlineEndpoint(name="phi-endpoint", auth_mode="key", tags={"owner": "me"})
    client.online_endpoints.begin_create_or_update(definition).result()
    deploy(client, deployment("blue", model, environment, source))
    return set_traffic(client, {"blue": 100})


def deployment(name: str, model: Any, environment: Any, source: Path, **changes: Any) -> Any:
    from azure.ai.ml.entities import (
        CodeConfiguration,
        ManagedOnlineDeployment,
        OnlineRequestSettings,
    )

    limits = {"max_concurrent_requests_per_instance": 8, "request_timeout_ms": 2000}
    code = CodeConfiguration(code=str(source / "serve"), scoring_script="score.py")
    settings = {
        "name": name,
        "endpoint_name": "phi-endpoint",
        "model": model,
        "environment": environment,
        "code_configuration": code,
        "environment_variables": {"MARK": name},
        "request_settings": OnlineRequestSettings(**limits),
        "instance_type": SIZE,
        "instance_count": 1,
    }
    return ManagedOnlineDeployment(**settings | changes)


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


def test_keys(client: Any, endpoint: Any, credential: Any, azure: FakeAzure) -> None:
    from azure.core.rest import HttpRequest
    from azure.mgmt.resource.resources import ResourceManagementClient

    before = client.online_endpoints.get_keys(endpoint.name)
    # The SDK sends the present key as `keyValue`, so the key is set to what it is.
    client.online_endpoints.begin_regenerate_keys(endpoint.name, key_type="primary").result()
    assert client.online_endpoints.get_keys(endpoint.name).primary_key == before.primary_key
    url = f"https://management.azure.com{endpoint.id}/regenerateKeys?api-version=2024-10-01"
    request = HttpRequest("POST", url, json={"keyType": "Primary"})
    resources = ResourceManagementClient(credential, azure.subscription)
    assert resources.send_request(request).status_code == 202
    after = client.online_endpoints.get_keys(endpoint.name)
    tried = [before.primary_key, after.primary_key, before.secondary_key]
    statuses = [score(client, endpoint, {"x": 1}, key).status_code for key in tried]
    assert statuses == [401, 200, 200]


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


def test_a_stream_arrives_in_pieces(
    client: Any, endpoint: Any, environment: Any, source: Path, azure: FakeAzure
) -> None:
    azure.stand_ins[environment.image] = source / "stream"
    deploy(client, deployment("stream", None, environment, source, code_configuration=None))
    key = client.online_endpoints.get_keys(endpoint.name).primary_key
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "stream"}
    with requests.post(
        endpoint.scoring_uri, json={}, headers=headers, stream=True, timeout=9
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        assert next(lines) == b"data: first"
        (source / "gate").touch()
        assert list(lines) == [b"data: last"]
    client.online_deployments.begin_delete("stream", endpoint.name).result()


def test_a_change_during_a_change_is_refused(
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


def test_an_endpoint_is_deleted_with_its_deployments(client: Any, azure: FakeAzure) -> None:
    from azure.ai.ml.entities import ManagedOnlineEndpoint
    from azure.core.exceptions import ResourceNotFoundError

    made = ManagedOnlineEndpoint(name="short-lived", auth_mode="aad_token")
    client.online_endpoints.begin_create_or_update(made).result()
    client.online_endpoints.begin_delete("short-lived").result()
    with pytest.raises(ResourceNotFoundError):
        client.online_endpoints.get("short-lived")
    assert not [key for key in azure.resources if "short-lived" in key]
