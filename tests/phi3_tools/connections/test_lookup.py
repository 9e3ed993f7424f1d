"""The order in which a connection is looked up, without Prompt flow."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_tools import ConfigError, Phi3Client
from phi3_tools.client import read_settings
from phi3_tools.connections import Connection
from phi3_tools.connections.lookup import FILE_VARIABLE, find_connection, require_connection

URL = "http://127.0.0.1:9/score"


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))


def store(name):
    return Connection(name, {"endpoint": f"{URL}?from=store"}, {"key": "of-the-store"})


def test_a_file_comes_first(tmp_path, monkeypatch):
    file = tmp_path / "connections.json"
    entry = {"configs": {"endpoint": f"{URL}?from=file"}, "secrets": {"key": "${env:MY_KEY}"}}
    file.write_text(json.dumps({"phi3": entry}))
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    monkeypatch.setenv("PHI3_CONNECTION_PHI3_ENDPOINT", f"{URL}?from=variable")
    monkeypatch.setenv("MY_KEY", "of-the-environment")
    found = find_connection("phi3", {})
    assert found.configs["endpoint"] == f"{URL}?from=file"
    assert read_settings(found).auth.header() == "Bearer of-the-environment"
    assert find_connection("other", {}) is None


def test_variables_of_the_name_come_before_the_stores(monkeypatch):
    monkeypatch.setenv("PHI3_CONNECTION_MY_PHI_3_ENDPOINT", f"{URL}?from=variable")
    monkeypatch.setenv("PHI3_CONNECTION_MY_PHI_3_KEY", "k")
    monkeypatch.setenv("PHI3_CONNECTION_MY_PHI_3_CONTRACT", "chat")
    found = find_connection("my-phi.3", {"promptflow": store})
    assert dict(found.configs) == {"endpoint": f"{URL}?from=variable", "contract": "chat"}
    assert dict(found.secrets) == {"key": "k"}
    assert find_connection("phi3", {"promptflow": store}).secrets["key"] == "of-the-store"


def test_variables_without_an_endpoint_replace_single_fields(monkeypatch):
    monkeypatch.setenv("PHI3_CONNECTION_PHI3_KEY", "new")
    monkeypatch.setenv("PHI3_CONNECTION_PHI3_DEPLOYMENT", "blue")
    found = find_connection("phi3", {"promptflow": store})
    assert dict(found.configs) == {"endpoint": f"{URL}?from=store", "deployment": "blue"}
    assert dict(found.secrets) == {"key": "new"}
    assert "new" not in repr(found)
    with pytest.raises(ConfigError, match="'phi3' has no `endpoint`"):
        read_settings(find_connection("phi3", {}))


def test_a_connection_does_not_read_the_variables_of_a_longer_name(monkeypatch):
    monkeypatch.setenv("PHI3_CONNECTION_PHI3_BASE_ENDPOINT", URL)
    assert find_connection("phi3", {}) is None
    assert find_connection("phi3-base", {}).configs["endpoint"] == URL


def test_the_plain_variables_are_the_connection_phi3_only_and_come_last(monkeypatch):
    monkeypatch.setenv("PHI3_ENDPOINT", URL)
    monkeypatch.setenv("PHI3_KEY", "k")
    assert dict(find_connection("phi3", {}).configs) == {"endpoint": URL}
    assert find_connection("phi3-base", {}) is None
    assert find_connection("phi3", {"workspace": store}).secrets["key"] == "of-the-store"


def test_a_missing_connection_is_named_with_the_variables():
    message = "'a-b' does not exist.*PHI3_CONNECTION_A_B_ENDPOINT and PHI3_CONNECTION_A_B_KEY"
    with pytest.raises(ConfigError, match=message):
        require_connection("a-b", {})


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"phi3": []}', '{"phi3": {"configs": 3}}', "[" * 200_000],
    ids=range(5),
)
def test_a_damaged_file_is_named_without_its_content(tmp_path, monkeypatch, text):
    file = tmp_path / "connections.json"
    file.write_text(text)
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with pytest.raises(ConfigError, match="connections.json does not contain connections"):
        find_connection("phi3", {})
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="cannot read .*none.json: No such file"):
        find_connection("phi3", {})


def test_a_connection_behaves_like_a_custom_connection():
    connection = Connection("c", {"endpoint": URL, "key": "not this"}, {"key": "this"})
    assert connection["key"] == "this" and connection.endpoint == URL
    assert "this" not in repr(connection).replace("not this", "")
    with pytest.raises(AttributeError, match="the connection 'c' has no field 'model'"):
        _ = connection.model


def test_a_client_takes_the_name_of_a_connection(monkeypatch):
    with echo_endpoint() as server:
        monkeypatch.setenv("PHI3_CONNECTION_ECHO_ENDPOINT", server.url)
        monkeypatch.setenv("PHI3_CONNECTION_ECHO_KEY", KEY)
        with Phi3Client.from_connection("echo") as client:
            assert client.chat("Hello").text == "Hello"
    with pytest.raises(ConfigError, match="the connection 'none' does not exist"):
        Phi3Client.from_connection("none")
