"""Prompt flow's connections, read from its database as Prompt flow reads them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf import promptflow_connections, store_database
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.promptflow_connections import (
    delete_promptflow_connection,
    find_promptflow_connection,
    list_promptflow_connections,
    write_promptflow_connection,
)

URL = "http://127.0.0.1:9/score"
CONFIGS, SECRETS = {"endpoint": URL, "contract": "chat"}, {"key": "k-1", "second": "ü✓"}


@pytest.fixture(autouse=True)
def written():
    write_promptflow_connection("direct", CONFIGS, SECRETS)
    yield
    delete_promptflow_connection("direct")


@pytest.fixture
def no_client(monkeypatch):
    def refuse():
        raise AssertionError("Prompt flow's client is used")

    monkeypatch.setattr(promptflow_connections, "pf_client", refuse)


def test_the_database_has_what_the_client_reads(no_client):
    connection = find_promptflow_connection("direct")
    theirs = pf_client().connections.get("direct", with_secrets=True)
    assert dict(connection.configs) == dict(theirs.configs) == CONFIGS
    assert dict(connection.secrets) == dict(theirs.secrets) == SECRETS
    assert find_promptflow_connection("none") is None
    (listed,) = [each for each in list_promptflow_connections() if each.name == "direct"]
    assert listed.configs == CONFIGS and "k-1" not in repr(listed)


def test_the_client_is_used_if_the_version_is_untested(monkeypatch):
    monkeypatch.setattr(store_database, "installed_version", lambda package: "1.99.0")
    assert dict(find_promptflow_connection("direct").secrets) == SECRETS
    assert find_promptflow_connection("none") is None
    assert "direct" in [each.name for each in list_promptflow_connections()]


def test_another_column_makes_the_table_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path))
    with closing(sqlite3.connect(tmp_path / "pf.sqlite")) as database:
        database.execute("CREATE TABLE run_info (name TEXT, further TEXT)")
    with store_database.open_database("run_info") as database:
        assert database is None


def test_a_connection_of_another_type_is_prompt_flows_own_object():
    from promptflow.entities import OpenAIConnection

    pf_client().connections.create_or_update(OpenAIConnection(name="openai", api_key="sk-1"))
    assert find_promptflow_connection("openai").api_key == "sk-1"
    assert delete_promptflow_connection("openai")


def test_a_changed_encryption_key_is_named(no_client, monkeypatch):
    import keyring
    from cryptography.fernet import Fernet

    key = Fernet.generate_key().decode()
    monkeypatch.setattr(keyring, "get_password", lambda *names: key)
    with pytest.raises(OpsError, match="encryption key in the keyring has changed"):
        find_promptflow_connection("direct")
    monkeypatch.setattr(keyring, "get_password", lambda *names: None)
    with pytest.raises(OpsError, match="keyring does not contain Prompt flow's encryption key"):
        find_promptflow_connection("direct")
