"""The arguments of `phi3 serve`: wrong ones are errors of one line."""

from __future__ import annotations

import getpass
import socket

import pytest

from documented_commands import documented, printed
from phi3_ops import chat
from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection


@pytest.fixture
def connection():
    save_connection("phi3", {"endpoint": "http://127.0.0.1:9/score"}, "a-key")
    yield "phi3"
    delete_connection("phi3")


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield str(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--connection", "none"),
            "the connection 'none' does not exist. Start a model with `phi3 endpoint`",
        ),
        (("--flow", "nowhere"), "nowhere is not a flow."),
        (
            ("--host", "0.0.0.0"),
            "refusing to listen on 0.0.0.0 without a password: other machines can reach it. Set "
            "PHI3_SERVE_TOKEN.",
        ),
        (("--feedback-store", "f"), "--feedback-store has no effect without --feedback. Add"),
        (("--trace", "nowhere"), "the destination of --trace is unknown."),
    ],
)
def test_wrong_input_is_one_line(connection, monkeypatch, capsys, words, message):
    monkeypatch.delenv("PHI3_SERVE_TOKEN", raising=False)
    assert main(["serve", "--port", "0", *words]) == 1
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


@documented("phi3 serve --feedback")
@pytest.mark.parametrize("password", [None, "sesame"])
def test_feedback_is_off_unless_it_is_switched_on(
    connection, monkeypatch, capsys, tmp_path, password
):
    apps = []

    def make_chat_app(*words, **options):
        apps.append(options["feedback"])

    monkeypatch.setenv("PHI3_HOME", str(tmp_path))
    monkeypatch.setenv("PHI3_SERVE_TOKEN", password or "")
    monkeypatch.setattr(chat, "make_chat_app", make_chat_app)
    monkeypatch.setattr(chat, "serve_app", lambda app, sock, ready, abandon: ready())
    assert main(["serve", "--port", "0"]) == 0
    assert "feedback" not in capsys.readouterr().out
    assert main([*printed("phi3 serve --feedback").split()[1:], "--port", "0"]) == 0
    assert f"feedback is stored in {tmp_path / 'feedback.sqlite'}\n" in capsys.readouterr().out
    assert main(["serve", "--port", "0", "--flow", "eval", "--feedback"]) == 0
    line = (
        "the page has no feedback buttons, because eval is not a chat; programs can send feedback"
    )
    assert f"{line} to http://127.0.0.1:" in capsys.readouterr().out
    apps.pop()
    file = tmp_path / "other.sqlite"
    assert main(["serve", "--port", "0", "--feedback", "--feedback-store", str(file)]) == 0
    off, default, other = apps
    assert off is None
    assert (default.file, other.file) == (tmp_path / "feedback.sqlite", file)
    assert list(default.secrets) == ([password] if password else [])
    # Without a password, the only user is that of this machine.
    assert default.user == (None if password else getpass.getuser())


def test_an_endpoint_that_is_not_running_is_a_warning(connection, monkeypatch, capsys, taken_port):
    save_connection("other", {"endpoint": f"http://127.0.0.1:{taken_port}/score"}, "a-key")
    monkeypatch.setattr(chat, "make_chat_app", lambda *args, **options: None)
    monkeypatch.setattr(chat, "serve_app", lambda app, sock, ready, abandon: ready())
    try:
        assert main(["serve", "--port", "0", "--against", "other"]) == 0
    finally:
        delete_connection("other")
    captured = capsys.readouterr()
    assert "warning: the endpoint of the connection 'phi3', 127.0.0.1:9, is not" in captured.err
    assert "`phi3 endpoint --model DIR`" in captured.err and "'other'" not in captured.err
    assert captured.out.startswith("serving ")


def test_a_port_in_use_is_one_line(connection, capsys, taken_port):
    assert main(["serve", "--port", taken_port]) == 1
    line = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1, port {taken_port}: Address already in use." in line
    assert line.count("\n") == 1
