"""Keys, tokens and scoring URLs."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from phi3_tools import AuthenticationError, ConfigError, EntraAuth, KeyAuth, Settings
from phi3_tools.client import auth as auth_module
from phi3_tools.client.auth import REFRESH_BEFORE_S, scoring_url, token_scope

SCOPE = "https://ml.azure.com/.default"
SECRET = "very-secret-key"


def test_a_key_is_sent_and_not_in_the_repr():
    key = KeyAuth(SECRET)
    assert key.header() == f"Bearer {SECRET}"
    assert SECRET not in f"{key!r} {key} {[key]}"


def test_equal_keys_are_equal():
    """The tools keep one client per connection."""
    assert KeyAuth("a") == KeyAuth("a")
    assert hash(KeyAuth("a")) == hash(KeyAuth("a"))
    assert KeyAuth("a") != KeyAuth("b")
    assert KeyAuth("a") != "a"


@pytest.mark.parametrize("key", ["two words", "line\nend", "tab\t", "schlüssel", "\0", " x"])
def test_an_invalid_key_is_refused_and_not_repeated(key):
    with pytest.raises(
        ConfigError, match="`key` contains blanks, line ends or characters"
    ) as caught:
        KeyAuth(key)
    assert key not in str(caught.value)


class Credential:
    """Returns the tokens t1, t2, …, valid for `lifetime` seconds."""

    def __init__(self, lifetime=3600, delay=0.0):
        self.lifetime, self.delay = lifetime, delay
        self.scopes = []
        self.error = None

    def get_token(self, scope):
        time.sleep(self.delay)
        if self.error:
            raise self.error
        self.scopes.append(scope)
        expires = auth_module.time.time() + self.lifetime
        return SimpleNamespace(token=f"t{len(self.scopes)}", expires_on=expires)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1_700_000_000.0)
    monkeypatch.setattr(auth_module, "time", SimpleNamespace(time=lambda: now.time))
    return now


def test_a_token_is_used_until_shortly_before_it_expires(clock):
    credential = Credential()
    auth = EntraAuth(SCOPE, credential)
    assert credential.scopes == []
    assert auth.header() == auth.header() == "Bearer t1"
    clock.time += 3600 - REFRESH_BEFORE_S - 1
    assert auth.header() == "Bearer t1"
    clock.time += 1
    assert auth.header() == "Bearer t2"
    assert credential.scopes == [SCOPE, SCOPE]


def test_a_token_that_cannot_be_replaced_is_used_until_it_expires(clock):
    credential = Credential()
    auth = EntraAuth(SCOPE, credential)
    auth.header()
    credential.error = RuntimeError("the identity service is down")
    clock.time += 3600 - 1
    assert auth.header() == "Bearer t1"
    clock.time += 1
    with pytest.raises(AuthenticationError, match="identity service is down.*az login"):
        auth.header()
    credential.error = None
    assert auth.header() == "Bearer t2"


def test_many_threads_ask_for_one_token():
    credential = Credential(delay=0.05)
    auth = EntraAuth(SCOPE, credential)
    headers = []
    threads = [threading.Thread(target=lambda: headers.append(auth.header())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert headers == ["Bearer t1"] * 16
    assert len(credential.scopes) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first line\nsecond line"), "could not get an Entra token: first line"),
        (ValueError(""), "could not get an Entra token: ValueError"),
    ],
)
def test_a_missing_token_is_an_error_with_a_hint(error, message):
    credential = Credential()
    credential.error = error
    with pytest.raises(AuthenticationError) as caught:
        EntraAuth(SCOPE, credential).header()
    assert str(caught.value).startswith(message)
    assert "second line" not in str(caught.value)
    assert "az login" in str(caught.value)


def test_azure_identity_is_used_only_if_a_token_is_needed(monkeypatch):
    credential = Credential()
    made = []
    fake = SimpleNamespace(DefaultAzureCredential=lambda: made.append(1) or credential)
    monkeypatch.setitem(sys.modules, "azure.identity", fake)
    auth = EntraAuth(SCOPE)
    assert made == []
    assert (auth.header(), auth.header()) == ("Bearer t1", "Bearer t1")
    assert made == [1]


def test_azure_identity_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigError, match="azure-identity is not installed. pip install"):
        EntraAuth(SCOPE).header()


def test_entra_auth_is_equal_by_scope_and_credential():
    credential = Credential()
    assert EntraAuth(SCOPE) == EntraAuth(SCOPE)
    assert hash(EntraAuth(SCOPE)) == hash(EntraAuth(SCOPE))
    assert EntraAuth(SCOPE, credential) != EntraAuth(SCOPE)
    assert EntraAuth(SCOPE) != EntraAuth("other")
    assert EntraAuth(SCOPE) != KeyAuth("a")


def test_a_token_is_not_in_the_repr():
    auth = EntraAuth(SCOPE, Credential())
    auth.header()
    assert repr(auth) == f"EntraAuth(scope={SCOPE!r})"


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("https://e.westeurope.inference.ml.azure.com/score", "https://ml.azure.com/.default"),
        ("https://e.openai.azure.com/v1", "https://cognitiveservices.azure.com/.default"),
        ("https://E.OpenAI.Azure.com:443/v1", "https://cognitiveservices.azure.com/.default"),
        ("https://e.services.ai.azure.com/models", "https://cognitiveservices.azure.com/.default"),
        ("https://e.cognitiveservices.azure.com", "https://cognitiveservices.azure.com/.default"),
        ("https://openai.azure.com.example.org", "https://ml.azure.com/.default"),
        ("http://127.0.0.1:5001/score", "https://ml.azure.com/.default"),
    ],
)
def test_token_scope(url, scope):
    assert token_scope(url) == scope


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://e.inference.ml.azure.com/score", "https://e.inference.ml.azure.com/score"),
        ("HTTPS://E/Score?x=A#y", "https://e/Score?x=A"),
        ("https://e", "https://e"),
        ("https://E:443/", "https://e:443/"),
        ("http://localhost:5001/score", "http://localhost:5001/score"),
        ("Http://LOCALHOST/score", "http://localhost/score"),
        ("http://127.0.0.1/score", "http://127.0.0.1/score"),
        ("http://127.8.9.1:80/score", "http://127.8.9.1:80/score"),
        ("hTTP://[::1]:5001/score", "http://[::1]:5001/score"),
    ],
)
def test_urls_have_one_normal_form(url, normal):
    assert scoring_url(url) == scoring_url(normal) == normal
    assert Settings(url, KeyAuth("k")).endpoint == normal


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://e.inference.ml.azure.com/score", "send the key to e.inference.* over plain http"),
        ("http://10.0.0.1/score", "over plain http. Use https"),
        ("http://0.0.0.0/score", "over plain http"),
        ("http://localhost.evil.org/score", "over plain http"),
        ("http://127.0.0.1.evil.org/score", "over plain http"),
        ("http://127.0.0.1@evil.org/score", "user name or password"),
        (
            "https://me:SECRET@e/score",
            "user name or password. Remove it from the URL, and put",
        ),
        ("https://SECRET@e/score", "user name or password"),
        ("ftp://e/score", "must be a full URL"),
        ("e.inference.ml.azure.com/score", "must be a full URL. It looks like https://NAME"),
        ("https:///score", "must be a full URL"),
        ("https://", "must be a full URL"),
        ("https://e:port/score", "is not a valid URL"),
        ("https://e:99999/score", "is not a valid URL"),
        ("https://[::1/score", "is not a valid URL"),
        ("https://e:SECRET/score", "is not a valid URL"),
        ("https://me:SECRET\u2100@e/score", "is not a valid URL"),
        ("http:127.0.0.1/score", "must be a full URL"),
        ("https://@e/score", "user name or password"),
        ("ht\ttp://127.0.0.1/score", "`endpoint` contains blanks, control characters or backsl"),
        ("http://127.0.0.1/sc ore", "`endpoint` contains blanks"),
        ("\x01http://127.0.0.1/score", "`endpoint` contains blanks"),
        ("https://e/score\r\nX: y", "`endpoint` contains blanks"),
        ("https://e\u200b/score", "`endpoint` contains blanks"),
        ("https://e\u00a0/score", "`endpoint` contains blanks"),
        ("https://e\\.evil.org/score", "`endpoint` contains blanks"),
    ],
)
def test_urls_that_are_refused(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        scoring_url(url)
    assert "SECRET" not in str(caught.value)
