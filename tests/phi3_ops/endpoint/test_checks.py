"""What the endpoint refuses before it starts: a missing key or model, and wrong traffic."""

from pathlib import Path

import pytest

from phi3_ops.endpoint.app import create_app
from phi3_ops.endpoint.checks import check_key, check_models, check_traffic
from phi3_ops.endpoint.container import Deployment, EndpointError
from tiny_endpoint import KEY, ThreadContainer, stand_in

WRONG_WEIGHTS = [
    ({"blue": 90}, "is 90 % in total, not 100 %"),
    ({"blue": 90, "green": 20}, "is 110 % in total, not 100 %"),
    ({}, "is 0 % in total"),
]


@pytest.mark.parametrize(("weights", "message"), WRONG_WEIGHTS)
def test_traffic_with_another_total_is_refused(tmp_path, weights, message):
    deployments = [stand_in(tmp_path, name, weight=w) for name, w in weights.items()]
    with pytest.raises(EndpointError, match=message):
        check_traffic(deployments)
    with pytest.raises(EndpointError, match=message):
        create_app([ThreadContainer(each) for each in deployments], key=KEY)


@pytest.mark.parametrize("weights", [(100,), (0,), (40, 60), (0, 0)])
def test_traffic_that_azure_accepts(tmp_path, weights):
    check_traffic([Deployment(f"d-{n}", tmp_path, weight=w) for n, w in enumerate(weights)])


def test_a_name_is_used_once(tmp_path):
    deployment = stand_in(tmp_path, weight=50)
    with pytest.raises(EndpointError, match="two deployments have the name blue"):
        check_traffic([deployment, deployment])
    with pytest.raises(EndpointError, match="two deployments have the name blue"):
        create_app([ThreadContainer(deployment)] * 2, key=KEY)


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_an_empty_key_is_refused(tmp_path, key):
    with pytest.raises(EndpointError, match="the endpoint's key is empty. Give it a key."):
        check_key(key)
    with pytest.raises(EndpointError, match="refusing to listen on 0.0.0.0 without a key: other"):
        check_key(key, "0.0.0.0")
    with pytest.raises(EndpointError, match="the endpoint's key is empty"):
        create_app([ThreadContainer(stand_in(tmp_path))], key=key)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_with_a_key_every_host_is_accepted(host):
    check_key("k", host)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none does not exist. Make one with `phi3 finetune --local`"),
        ("file", "file is not a folder. Make one"),
        ("file/below", "file/below does not exist. Make one"),
        ("empty", "empty is empty. Make one"),
        ("x" * 300, "cannot be read: File name too long. Make one"),
    ],
)
def test_a_missing_model_is_refused(tmp_path, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    deployments = [Deployment("blue", tmp_path, 50), Deployment("green", tmp_path / name, 50)]
    with pytest.raises(EndpointError) as caught:
        check_models(deployments)
    assert str(caught.value).startswith(f"the model folder {tmp_path}")
    assert message in str(caught.value)


def test_a_model_that_cannot_be_read_is_refused(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(EndpointError, match=f"{tmp_path} cannot be read: Permission denied"):
        check_models([Deployment("blue", tmp_path)])
