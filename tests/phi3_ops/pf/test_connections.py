from __future__ import annotations

import logging

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.pf.connections import (
    PROBE_QUESTION,
    connection_key,
    delete_connection,
    load_connection,
    probe_endpoint,
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


def test_what_the_flows_read_is_what_was_written():
    save_connection("t", {"endpoint": URL, "contract": "chat", "model": ""}, "one")
    found = load_connection("t")
    assert dict(found.configs) == {"endpoint": URL, "contract": "chat"}
    assert dict(found.secrets) == {"key": "one"}


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


def test_check_asks_the_endpoint():
    with echo_endpoint() as server:
        assert probe_endpoint({"endpoint": server.url}, KEY).text == PROBE_QUESTION
        with pytest.raises(AuthenticationError):
            probe_endpoint({"endpoint": server.url}, "wrong")


def test_no_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    save_connection("t", {"endpoint": URL}, "very-secret-key")
    assert "very-secret-key" not in caplog.text


def test_deleting_what_is_not_there_says_so():
    assert delete_connection("none") is False
