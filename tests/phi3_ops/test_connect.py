from __future__ import annotations

import logging

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import connect
from phi3_tools import AuthenticationError, ConfigError

URL = "http://127.0.0.1:9/score"


@pytest.fixture(autouse=True)
def clean():
    yield
    connect.delete("t")


def test_created_then_unchanged_then_updated():
    assert connect.save("t", {"endpoint": URL}, "one") == "created"
    assert connect.save("t", {"endpoint": URL}, "one") == "unchanged"
    assert connect.save("t", {"endpoint": URL}, "two") == "updated"
    assert connect.key_of("t") == "two"


def test_what_the_flows_read_is_what_was_written():
    connect.save("t", {"endpoint": URL, "contract": "chat", "model": ""}, "one")
    found = connect.load("t")
    assert dict(found.configs) == {"endpoint": URL, "contract": "chat"}
    assert dict(found.secrets) == {"key": "one"}


def test_a_wrong_field_is_refused_before_anything_is_written():
    with pytest.raises(ConfigError, match="contract"):
        connect.save("t", {"endpoint": URL, "contract": "soap"}, "one")
    with pytest.raises(ConfigError, match="endpoint"):
        connect.save("t", {}, "one")
    assert connect.load("t") is None


def test_entra_needs_no_key():
    connect.save("t", {"endpoint": "https://e.inference.ml.azure.com/score", "auth": "entra"}, "")
    assert dict(connect.load("t").configs)["auth"] == "entra"


def test_check_asks_the_endpoint():
    with echo_endpoint() as server:
        assert connect.check({"endpoint": server.url}, KEY).text == connect.PROBE
        with pytest.raises(AuthenticationError):
            connect.check({"endpoint": server.url}, "wrong")


def test_no_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    connect.save("t", {"endpoint": URL}, "very-secret-key")
    assert "very-secret-key" not in caplog.text


def test_deleting_what_is_not_there_says_so():
    assert connect.delete("none") is False
