"""The connection of the flows: written, checked, read and deleted in Prompt flow's own store."""

from __future__ import annotations

import logging

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.errors import OpsError
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import (
    PROBE_QUESTION,
    connection_key,
    connection_url,
    delete_connection,
    load_connection,
    probe_endpoint,
    refuse_replacing_connection,
    require_connection,
    save_connection,
)
from phi3_tools import AuthenticationError, ConfigError

URL = "http://127.0.0.1:9/score"


@pytest.fixture(autouse=True)
def clean():
    yield
    delete_connection("t")


def test_created_then_unchanged_then_updated():
    assert save_connection("t", {"endpoint": URL}, "one") == "created"
    assert save_connection("t", {"endpoint": URL}, "one") == "unchanged"
    assert save_connection("t", {"endpoint": URL}, "two") == "updated"
    assert connection_key("t") == "two"


def test_the_flows_read_what_was_written():
    save_connection("t", {"endpoint": URL, "contract": "chat", "model": ""}, "one")
    connection = load_connection("t")
    assert dict(connection.configs) == {"endpoint": URL, "contract": "chat"}
    assert dict(connection.secrets) == {"key": "one"}


def test_a_wrong_field_is_refused_before_anything_is_written():
    with pytest.raises(ConfigError, match="contract"):
        save_connection("t", {"endpoint": URL, "contract": "soap"}, "one")
    with pytest.raises(ConfigError, match="endpoint"):
        save_connection("t", {}, "one")
    assert load_connection("t") is None


def test_entra_needs_no_key():
    save_connection(
        "t", {"endpoint": "https://e.inference.ml.azure.com/score", "auth": "entra"}, ""
    )
    assert dict(load_connection("t").configs)["auth"] == "entra"


def test_a_probe_asks_the_endpoint():
    with echo_endpoint() as server:
        assert probe_endpoint({"endpoint": server.url}, KEY).text == PROBE_QUESTION
        with pytest.raises(AuthenticationError):
            probe_endpoint({"endpoint": server.url}, "wrong")


def test_no_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    save_connection("t", {"endpoint": URL}, "very-secret-key")
    assert "very-secret-key" not in caplog.text


def test_deleting_a_connection_that_does_not_exist_returns_false():
    assert delete_connection("none") is False


def test_the_key_of_a_connection_that_does_not_exist_is_none():
    assert connection_key("none") is None


def test_a_required_connection_that_does_not_exist_is_named():
    with pytest.raises(OpsError, match="the connection 'none' does not exist.*phi3 connect"):
        require_connection("none")
    save_connection("t", {"endpoint": URL}, "one")
    assert require_connection("t").name == "t"


def test_a_store_that_cannot_be_used_is_named(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no keyring")

    connections = type(pf_client().connections)
    monkeypatch.setattr(connections, "get", broken)
    with pytest.raises(OpsError, match="cannot read connection 't': no keyring.*PF_HOME_DIRECTORY"):
        load_connection("t")
    monkeypatch.undo()
    monkeypatch.setattr(connections, "create_or_update", broken)
    with pytest.raises(OpsError, match="cannot write connection 't': no keyring"):
        save_connection("t", {"endpoint": URL}, "one")


# -- replacing ---------------------------------------------------------------------------------------

OTHER = "https://prod.eastus2.inference.ml.azure.com/score"


@pytest.mark.parametrize(
    ("present", "url"),
    [
        (None, OTHER),
        ("http://127.0.0.1:9/score", OTHER),
        ("http://localhost:9/score", ""),
        ("http://[::1]:9/score", ""),
        (OTHER, "https://PROD.eastus2.inference.ml.azure.com/other"),
    ],
)
def test_a_connection_to_this_machine_or_to_the_same_host_may_be_replaced(present, url):
    if present:
        save_connection("t", {"endpoint": present}, "key")
    refuse_replacing_connection("t", url, "")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/score", "https://prod.westus.inference.ml.azure.com/score", ""]
)
def test_a_connection_to_another_host_may_not_be_replaced(url):
    save_connection("t", {"endpoint": OTHER}, "key")
    message = r"'t' points to another endpoint \(prod.eastus2.*\), and would be replaced. Wait."
    with pytest.raises(OpsError, match=message):
        refuse_replacing_connection("t", url, "Wait.")


@pytest.mark.parametrize("configs", [{"api_base": "x"}, {"endpoint": "http://[x"}])
def test_a_connection_of_an_unknown_kind_may_not_be_replaced(configs):
    from promptflow.entities import CustomConnection

    pf_client().connections.create_or_update(
        CustomConnection(name="t", configs=configs, secrets={"key": "k"})
    )
    with pytest.raises(OpsError, match=r"another endpoint \(unknown\)"):
        refuse_replacing_connection("t", URL, "")


def test_the_url_of_a_connection():
    assert connection_url("t") is None
    save_connection("t", {"endpoint": URL}, "one")
    assert connection_url("t") == URL
