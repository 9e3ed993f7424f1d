"""`phi3 connect`: it checks before it writes, and never prints a key."""

from __future__ import annotations

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.cli import connect, main
from processes import phi3


def test_it_checks_then_writes():
    with echo_endpoint() as server:
        words = ("connect", "--name", "c", "--endpoint", server.url)
        done = phi3(*words, env={"PHI3_KEY": KEY})
    assert done.returncode == 0, done.stderr
    assert "connection 'c' created" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert "deleted 'c'" in phi3("connect", "--name", "c", "--delete").stdout


def test_a_wrong_key_writes_nothing():
    with echo_endpoint() as server:
        words = ("connect", "--name", "w", "--endpoint", server.url)
        done = phi3(*words, env={"PHI3_KEY": "wrong-key"})
    assert done.returncode == 1
    assert "refused the key" in done.stderr and "wrong-key" not in done.stderr
    assert "connection 'w' does not exist" in phi3("connect", "--name", "w", "--delete").stdout


def test_it_does_not_ask_for_a_key_without_a_terminal():
    done = phi3("connect", "--endpoint", "http://127.0.0.1:9/score")
    assert done.returncode == 1
    assert "the key is missing. Set PHI3_KEY." in done.stderr


@pytest.fixture
def saved(monkeypatch):
    """The arguments of `save_connection`, which writes nothing."""
    from phi3_ops import pf

    calls = []
    monkeypatch.setattr(
        pf,
        "save_connection",
        lambda name, fields, key: calls.append((name, fields, key)) or "created",
    )
    return calls


def test_the_terminal_is_asked_for_the_key(saved, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed")
    assert main(["connect", "--endpoint", "https://x/score", "--no-check"]) == 0
    assert saved == [("phi3", {"endpoint": "https://x/score"}, "typed")]


def test_entra_needs_no_key(saved, monkeypatch):
    monkeypatch.delenv(connect.KEY_VARIABLE, raising=False)
    words = ["connect", "--endpoint", "https://x/score", "--auth", "entra", "--no-check"]
    assert main(words) == 0
    assert saved == [("phi3", {"endpoint": "https://x/score", "auth": "entra"}, "")]


def test_the_endpoint_comes_from_the_environment(saved, monkeypatch):
    monkeypatch.setenv("PHI3_ENDPOINT", "https://y/score")
    monkeypatch.setenv(connect.KEY_VARIABLE, "k")
    assert main(["connect", "--name", "n", "--contract", "openai", "--no-check"]) == 0
    assert saved == [("n", {"contract": "openai", "endpoint": "https://y/score"}, "k")]


@pytest.mark.parametrize("option", ["--rotate", "--dry-run", "--config=x"])
def test_an_option_for_azure_is_not_ignored(option, capsys):
    assert main(["connect", option]) == 2
    assert "go with --azure" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--contract", "--template", "--auth"])
def test_an_unknown_choice_is_wrong_usage(option, capsys):
    with pytest.raises(SystemExit) as end:
        main(["connect", option, "nonsense"])
    assert end.value.code == 2
    assert f"'nonsense' is not a valid {option}" in capsys.readouterr().err


@pytest.mark.finding(
    2,
    "`phi3 connect` with the name of a connection to another host",
    "it is refused without `--replace`",
)
def test_a_connection_to_another_machine_is_replaced_only_if_the_user_says_so(monkeypatch, capsys):
    from phi3_ops.pf.connections import connection_key, delete_connection

    words = ["connect", "--name", "g", "--no-check", "--endpoint"]
    other = "https://other.westus.inference.ml.azure.com/score"
    try:
        monkeypatch.setenv(connect.KEY_VARIABLE, "production")
        assert main([*words, "https://prod.eastus2.inference.ml.azure.com/score"]) == 0
        monkeypatch.setenv(connect.KEY_VARIABLE, "mine")
        for url in (other, "http://127.0.0.1:9/score"):
            assert main([*words, url]) == 1
            assert "points to another endpoint (prod.eastus2" in capsys.readouterr().err
            assert connection_key("g") == "production"
        assert main([*words, other, "--replace"]) == 0
        assert connection_key("g") == "mine"
    finally:
        delete_connection("g")


def test_an_endpoint_is_needed(monkeypatch, capsys):
    monkeypatch.delenv("PHI3_ENDPOINT", raising=False)
    assert main(["connect", "--connection", "c"]) == 1  # a synonym of --name
    assert "the URL of the endpoint is missing. Give --endpoint URL" in capsys.readouterr().err
