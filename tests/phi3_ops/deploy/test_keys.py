"""The content of a connection to the endpoint, the workspace's connection, and new keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from offline_cloud import missing, offline_cloud
from phi3_ops.deploy import keys
from phi3_ops.deploy.keys import (
    ConnectionContent,
    plan_key_connection,
    read_endpoint,
    rotate_keys,
    write_workspace_connection,
)
from phi3_ops.errors import OpsError
from phi3_ops.pf import connections
from phi3_ops.pf.connections import NO_KEY
from phi3_tools import AuthenticationError

URI = "https://e.eastus2.inference.ml.azure.com/score"
LIVE = SimpleNamespace(scoring_uri=URI, traffic={"d": 100}, provisioning_state="Succeeded")


class Endpoints:
    """The operations on endpoints, with keys that change when they are regenerated."""

    def __init__(self, endpoint=LIVE):
        self.endpoint = endpoint
        self.keys = SimpleNamespace(primary_key="p1", secondary_key="s1")
        self.regenerated = []

    def get(self, name):
        return self.endpoint or missing()

    def get_keys(self, name):
        return SimpleNamespace(**vars(self.keys))

    def regenerate(self, body):
        assert {*body} == {"keyType"}  # `keyValue` would set the key
        key_type = body["keyType"].lower()
        self.regenerated.append(key_type)
        value = getattr(self.keys, f"{key_type}_key")
        setattr(self.keys, f"{key_type}_key", f"{value[0]}{int(value[1:]) + 1}")


@pytest.fixture
def local(monkeypatch):
    """The local connection: name -> (fields, key)."""
    store = {}

    def load(name):
        if name not in store:
            return None
        fields, key = store[name]
        return SimpleNamespace(configs=fields, secrets={"key": key or NO_KEY})

    def save(name, fields, key):
        store[name] = (dict(fields), key)

    monkeypatch.setattr(keys, "load_connection", load)
    monkeypatch.setattr(keys, "save_connection", save)
    monkeypatch.setattr(keys, "connection_key", lambda name: store.get(name, ({}, ""))[1])
    return store


def cloud_with(endpoint=LIVE, **sections):
    """A cloud whose workspace keeps what is written into its connections."""
    clients = {"ml": SimpleNamespace(online_endpoints=Endpoints(endpoint))}
    cloud = offline_cloud(clients, **{"endpoint": {"variant": "score"}, **sections})
    cloud.written = {}

    def rest(method, path, *, api, body=None):
        if method == "PUT":
            cloud.written[path] = body
            return body
        if path.endswith("/onlineEndpoints/phi3-endpoint/regenerateKeys"):
            return cloud.ml.online_endpoints.regenerate(body)
        return cloud.written.get(path.removesuffix("/listsecrets")) or missing()

    cloud.rest = rest
    return cloud


class TestReadEndpoint:
    @pytest.mark.parametrize(("current", "key"), [("", "p1"), ("old", "p1"), ("s1", "s1")])
    def test_the_key_of_the_connection_is_kept(self, local, current, key):
        local["phi3"] = ({}, current)
        content = read_endpoint(cloud_with())
        assert content == ConnectionContent({"endpoint": URI, "contract": "auto"}, key)

    def test_the_variants_path_and_contract(self, local):
        content = read_endpoint(cloud_with(endpoint=LIVE, **{"connection": "phi3"}))
        assert content.fields["endpoint"] == URI
        cloud = cloud_with()
        cloud.config = offline_cloud(endpoint={"variant": "vllm"}).config
        content = read_endpoint(cloud)
        assert content.fields["contract"] == "openai"
        assert content.fields["endpoint"].endswith(".azure.com/v1/chat/completions")

    def test_entra_has_no_key(self, local):
        cloud = cloud_with()
        cloud.config = offline_cloud(endpoint={"auth": "entra"}).config
        content = read_endpoint(cloud)
        assert (content.fields["auth"], content.key) == ("entra", "")

    @pytest.mark.parametrize(
        ("endpoint", "message"),
        [
            (None, "the endpoint phi3-endpoint does not exist. Create it with `phi3 deploy`"),
            (SimpleNamespace(scoring_uri=URI, traffic={"d": 0}), "has no traffic"),
            (SimpleNamespace(scoring_uri=URI, traffic=None), "has no traffic"),
        ],
    )
    def test_nothing_to_connect_to(self, local, endpoint, message):
        with pytest.raises(OpsError, match=message):
            read_endpoint(cloud_with(endpoint))


class TestWorkspaceConnection:
    @pytest.mark.parametrize("key", ["secret", ""])
    def test_the_form_that_promptflow_reads(self, key):
        cloud = cloud_with()
        write_workspace_connection(cloud, "phi3", ConnectionContent({"endpoint": URI}, key))
        ((path, body),) = cloud.written.items()
        assert path == f"{cloud.workspace_path}/connections/phi3"
        properties = body["properties"]
        assert properties["authType"] == properties["category"] == "CustomKeys"
        assert properties["credentials"] == {"keys": {"key": key or NO_KEY}}
        assert properties["metadata"]["azureml.flow.connection_type"] == "Custom"
        assert properties["metadata"]["endpoint"] == properties["target"] == URI
        assert properties["metadata"]["created-by"] == "phi3-promptflow"


def test_both_connections_are_written_once(local):
    cloud = cloud_with()
    plan = plan_key_connection(cloud)
    assert [step.exists() for step in plan.steps] == [False, False]
    for step in plan.steps:
        step.apply()
    assert [step.exists() for step in plan_key_connection(cloud).steps] == [True, True]
    assert local["phi3"] == ({"endpoint": URI, "contract": "auto"}, "p1")
    cloud.ml.online_endpoints.keys.primary_key = "p2"
    assert [step.exists() for step in plan_key_connection(cloud).steps] == [False, False]


class TestRotate:
    @pytest.fixture(autouse=True)
    def short_waits(self, monkeypatch):
        monkeypatch.setattr(keys, "KEY_POLL_S", 0.0)

    def test_the_unused_key_first(self, local, monkeypatch):
        tried = []
        monkeypatch.setattr(keys, "probe_endpoint", lambda fields, key: tried.append(key))
        cloud = cloud_with()
        assert rotate_keys(cloud) == "secondary"
        assert cloud.ml.online_endpoints.regenerated == ["secondary", "primary"]
        assert (tried, local["phi3"][1]) == (["s2"], "s2")
        assert rotate_keys(cloud) == "primary"
        assert local["phi3"][1] == "p3"

    def test_a_key_that_is_accepted_late(self, local, monkeypatch):
        answers = iter([AuthenticationError("not yet"), AuthenticationError("not yet"), None])

        def probe(fields, key):
            if error := next(answers):
                raise error

        monkeypatch.setattr(keys, "probe_endpoint", probe)
        assert rotate_keys(cloud_with()) == "secondary"

    def test_a_key_that_is_never_accepted_keeps_the_old_one(self, local, monkeypatch):
        def probe(fields, key):
            raise AuthenticationError("no")

        monkeypatch.setattr(keys, "probe_endpoint", probe)
        monkeypatch.setattr(keys, "KEY_READY_S", 0.0)
        cloud = cloud_with()
        with pytest.raises(OpsError, match="does not accept the new key. The old key still works"):
            rotate_keys(cloud)
        assert cloud.ml.online_endpoints.regenerated == ["secondary"]
        assert local["phi3"][1] == "p1"

    @pytest.mark.parametrize("regenerated", [[], ["secondary"]])
    def test_a_key_that_azure_does_not_change(self, local, monkeypatch, regenerated):
        cloud = cloud_with()
        endpoints = cloud.ml.online_endpoints
        change = endpoints.regenerate
        monkeypatch.setattr(keys, "probe_endpoint", lambda fields, key: None)
        monkeypatch.setattr(keys, "KEY_READY_S", 0.0)
        endpoints.regenerate = lambda body: (
            change(body) if body["keyType"].lower() in regenerated else None
        )
        with pytest.raises(OpsError, match="Azure has not changed the .*ary key of the endpoint"):
            rotate_keys(cloud)
        assert endpoints.regenerated == regenerated
        assert local["phi3"][1] == ("s2" if regenerated else "p1")

    def test_an_endpoint_without_keys(self, local):
        cloud = cloud_with()
        cloud.config = offline_cloud(endpoint={"auth": "entra"}).config
        with pytest.raises(OpsError, match="does not use keys. There is nothing to rotate"):
            rotate_keys(cloud)


@pytest.mark.parametrize("command", [plan_key_connection, rotate_keys])
def test_a_connection_to_another_endpoint_is_not_replaced(local, monkeypatch, command):
    other = SimpleNamespace(configs={"endpoint": "https://other.azure.com/score"}, secrets={})
    monkeypatch.setattr(connections, "load_connection", lambda name: other)
    cloud = cloud_with()
    with pytest.raises(
        OpsError, match=r"'phi3' points to another endpoint \(other.*Give --replace"
    ):
        command(cloud)
    assert not local and not cloud.written and not cloud.ml.online_endpoints.regenerated
    plan_key_connection(cloud, replace=True)
