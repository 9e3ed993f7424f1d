"""The connection of the flows: written, checked, read and deleted in Prompt flow's own store."""

from __future__ import annotations

import logging

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.errors import OpsError
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import (
    PROBE_QUESTION,
    StoredConnection,
    connection_key,
    connection_url,
    delete_connection,
    import_promptflow_connections,
    list_connections,
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
    import keyring

    def broken(*args, **options):
        raise RuntimeError("no keyring")

    save_connection("t", {"endpoint": URL}, "one")
    monkeypatch.setattr(keyring, "get_password", broken)
    with pytest.raises(OpsError, match="cannot read connection 't': no keyring.*PF_HOME_DIRECTORY"):
        load_connection("t")
    monkeypatch.undo()
    connections = type(pf_client().connections)
    monkeypatch.setattr(connections, "create_or_update", broken)
    with pytest.raises(OpsError, match="cannot write connection 't': no keyring"):
        save_connection("t", {"endpoint": URL}, "two")
    monkeypatch.undo()


# -- both stores -------------------------------------------------------------------------------------


@pytest.fixture
def without_promptflow(monkeypatch):
    """A machine on which Prompt flow is not installed."""
    from phi3_ops.pf import store_database

    monkeypatch.setattr(store_database, "installed_version", lambda package: "")


def test_without_promptflow_the_own_store_is_used(without_promptflow):
    assert save_connection("t", {"endpoint": URL}, "one") == "created"
    assert save_connection("t", {"endpoint": URL}, "two") == "updated"
    assert require_connection("t").source.startswith("the store ")
    assert [each for each in list_connections() if each.name == "t"] == [
        StoredConnection("t", "phi3", {"endpoint": URL})
    ]
    assert delete_connection("t") and load_connection("t") is None
    with pytest.raises(OpsError, match="Prompt flow is not installed"):
        import_promptflow_connections()


def test_imported_connections_work_without_promptflow(monkeypatch):
    from promptflow.entities import AzureOpenAIConnection

    from phi3_ops.pf import store_database

    store = pf_client().connections
    store.create_or_update(AzureOpenAIConnection(name="aoai", api_key="k", api_base="https://x"))
    save_connection("t", {"endpoint": URL, "contract": "chat"}, "one")
    copied, skipped = import_promptflow_connections()
    store.delete("aoai")
    assert "t" in copied and skipped == ["aoai"]
    save_connection("t", {"endpoint": URL, "contract": "chat"}, "two")  # also changes the copy
    monkeypatch.setattr(store_database, "installed_version", lambda package: "")
    connection = require_connection("t")
    assert dict(connection.configs) == {"endpoint": URL, "contract": "chat"}
    assert dict(connection.secrets) == {"key": "two"}
    monkeypatch.undo()
    assert delete_connection("t")
    monkeypatch.setattr(store_database, "installed_version", lambda package: "")
    assert load_connection("t") is None


def test_variables_come_before_the_stores(monkeypatch):
    save_connection("t", {"endpoint": URL}, "one")
    monkeypatch.setenv("PHI3_CONNECTION_T_ENDPOINT", OTHER)
    monkeypatch.setenv("PHI3_CONNECTION_T_KEY", "two")
    assert require_connection("t").secrets["key"] == "two"
    assert load_connection("t").secrets["key"] == "one"


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
