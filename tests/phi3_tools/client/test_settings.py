"""Connections in the forms that users create, and their mistakes."""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace

import pytest
from promptflow.core._connection import CustomConnection

from phi3_tools import ConfigError, EntraAuth, KeyAuth, Limits, Settings
from phi3_tools.client.settings import SETTINGS_VARIABLES, connection_fields, read_settings

URL = "https://e.westeurope.inference.ml.azure.com/score"
SECRET = "very-secret-key"
PLAIN = {"endpoint": URL, "key": SECRET}


def test_the_tutorials_two_keys_are_enough():
    assert read_settings(PLAIN) == Settings(URL, KeyAuth(SECRET))


@pytest.mark.parametrize(
    ("configs", "secrets"),
    [
        ({"endpoint": URL}, {"key": SECRET}),
        ({}, {"endpoint": URL, "key": SECRET}),  # Foundry, with both fields marked secret
        ({"endpoint": URL, "key": SECRET}, {}),
        ({"endpoint": URL, "key": "old"}, {"key": SECRET}),
        ({"endpoint": f" {URL}\n"}, {"key": f"\t{SECRET} "}),
        (None, {"endpoint": URL, "key": SECRET}),
        ({"endpoint": URL, "model": "", "contract": None}, {"key": SECRET}),
    ],
)
def test_any_field_may_be_marked_secret(configs, secrets):
    connection = SimpleNamespace(configs=configs, secrets=secrets)
    assert read_settings(connection) == Settings(URL, KeyAuth(SECRET))


def test_a_real_connection_is_read_without_a_warning(caplog):
    """Prompt flow logs a warning if a field is read as an attribute."""
    connection = CustomConnection(
        configs={"endpoint": URL, "contract": "chat", "read_timeout_s": "7"},
        secrets={"key": SECRET},
    )
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        settings = read_settings(connection)
    assert settings.contract == "chat"
    assert settings.limits == Limits(read_timeout_s=7)
    assert not caplog.records
    assert not warned


def test_a_real_connection_lacks_a_field():
    connection = CustomConnection(name="mine", configs={"url": URL}, secrets={"key": SECRET})
    with pytest.raises(ConfigError) as caught:
        read_settings(connection)
    assert str(caught.value) == (
        "the connection 'mine' has no `endpoint` (it has `key`, `url`). "
        "Add `endpoint` to its configs."
    )


def test_every_field_of_a_connection():
    optional = {
        "contract": "openai",
        "deployment": "blue",
        "model": "phi3",
        "tokenizer": "/t.json",
        "deadline_s": "20",
        "template": "server",
    }
    assert read_settings({**PLAIN, **optional}) == Settings(
        URL, KeyAuth(SECRET), "openai", "blue", "phi3", "/t.json", Limits(deadline_s=20), "server"
    )


def test_the_environment_replaces_a_connection(monkeypatch):
    values = {**PLAIN, "contract": "chat", "deployment": "blue", "auth": "key", "model": "m"}
    values["template"] = "server"
    for field, variable in SETTINGS_VARIABLES.items():
        monkeypatch.setenv(variable, values[field])
    assert read_settings(None) == Settings(
        URL, KeyAuth(SECRET), "chat", "blue", "m", template="server"
    )


def test_entra_needs_no_key():
    settings = read_settings({"endpoint": URL, "auth": "entra"})
    assert settings.auth == EntraAuth("https://ml.azure.com/.default")


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (
            None,
            "no connection was given, and PHI3_ENDPOINT is not set. Choose a connection, or set",
        ),
        ({"key": SECRET}, "the connection has no `endpoint` .it has `key`.. Add `endpoint` to its"),
        ({}, "the connection has no `endpoint`. Add"),
        ({"endpoint": URL}, "has no `key` .* Add `key` to its secrets, or set `auth: entra`"),
        ({**PLAIN, "key": "  "}, "has no `key`"),
        ({**PLAIN, "auth": "token"}, "`auth` is 'token', but must be `key` or `entra`"),
        ({**PLAIN, "contract": "grpc"}, "`contract` is 'grpc', but must be one of auto, chat"),
        ({**PLAIN, "template": "azure"}, "`template` is 'azure', but must be `client` or `server`"),
        ({**PLAIN, "endpoint": "http://e/score"}, "plain http"),
        ({"endpoint": "http://e/score"}, "plain http"),
        ({**PLAIN, "deadline_s": "soon"}, "`deadline_s` is 'soon'"),
        ({**PLAIN, "deployment": "blue\r\nx: y"}, "`deployment` is not a valid name"),
        ({**PLAIN, "deployment": "blü"}, "`deployment` is not a valid name"),
        (
            {**PLAIN, "endpoint": "<your-endpoint>"},
            "`endpoint` is still the placeholder <your-endp",
        ),
        (
            {**PLAIN, "key": "<user-input>"},
            "`key` is still the placeholder. Replace it with the",
        ),
        ({**PLAIN, "key": "******"}, "`key` is still the placeholder"),
        ({**PLAIN, "key": "a b"}, "`key` contains blanks"),
        ("phi3", "got the connection's name .'phi3'.* Give the input the type CustomConnection"),
        (7, "int is not a CustomConnection. Choose a CustomConnection"),
    ],
)
def test_each_mistake_has_a_message_with_its_fix(connection, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(connection)
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_the_environment_lacks_a_key(monkeypatch):
    monkeypatch.setenv("PHI3_ENDPOINT", URL)
    with pytest.raises(ConfigError, match="PHI3_KEY is not set. Choose a connection, or set PHI3_"):
        read_settings()


def test_references_to_the_environment(monkeypatch):
    monkeypatch.setenv("HOST_NAME", "e.westeurope")
    monkeypatch.setenv("MY_KEY", SECRET)
    connection = {
        "endpoint": "https://${env:HOST_NAME}.inference.ml.azure.com/score",
        "key": "${env:MY_KEY}",
        "model": "$env:X {env:Y} ${Z}",
    }
    settings = read_settings(connection)
    assert (settings.endpoint, settings.auth) == (URL, KeyAuth(SECRET))
    assert settings.model == "$env:X {env:Y} ${Z}"


def test_a_reference_to_an_unset_variable_is_refused():
    with pytest.raises(
        ConfigError,
        match="`key` refers to .* NOT_SET_HERE, which is not set. Set NOT_",
    ):
        read_settings({**PLAIN, "key": "${env:NOT_SET_HERE}"})


def test_an_empty_reference_is_an_empty_field(monkeypatch):
    monkeypatch.setenv("MY_KEY", "")
    with pytest.raises(ConfigError, match="has no `key`"):
        read_settings({**PLAIN, "key": "${env:MY_KEY}"})


def test_settings_are_checked_at_construction():
    with pytest.raises(ConfigError, match="plain http"):
        Settings("http://e/score", KeyAuth("k"))
    with pytest.raises(ConfigError, match="`contract` is 'x'"):
        Settings(URL, KeyAuth("k"), "x")


def test_settings_do_not_show_the_key():
    settings = read_settings(PLAIN)
    assert SECRET not in f"{settings!r} {settings}"
    assert URL in repr(settings)


def test_equal_connections_give_equal_settings():
    """The tools keep one client per connection."""
    assert hash(read_settings(PLAIN)) == hash(read_settings({**PLAIN}))
    assert read_settings(PLAIN) != read_settings({**PLAIN, "key": "other"})


def test_connection_fields():
    assert connection_fields({"a": 1, "b": None, "c": "", "d": " x "}) == {"a": "1", "d": "x"}


@pytest.mark.finding(
    7,
    "a key is pasted into another field of a connection",
    "the error names the field without its value",
)
@pytest.mark.parametrize("field", ["contract", "auth", "template", "deadline_s", "deployment"])
def test_a_key_that_was_pasted_into_another_field_is_not_in_the_error(field):
    key = "k3y-0123456789"
    with pytest.raises(ConfigError, match=field) as caught:
        read_settings({**PLAIN, "key": key, field: f"{key}ü"})
    assert key not in f"{caught.value} {caught.value!r}"


def test_a_key_in_angle_brackets_is_not_in_the_error():
    with pytest.raises(ConfigError, match="`key` is still the placeholder") as caught:
        read_settings({**PLAIN, "key": "<k3y-0123456789>"})
    assert "0123" not in str(caught.value)
