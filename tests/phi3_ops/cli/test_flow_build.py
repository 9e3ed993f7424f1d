"""`phi3 flow build`: what it prints, and a folder that it does not replace."""

from __future__ import annotations

import pytest

from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection


@pytest.fixture
def connection():
    save_connection("phi3", {"endpoint": "http://127.0.0.1:9/score"}, "a-key-of-the-store")
    yield "phi3"
    delete_connection("phi3")


def test_it_prints_how_to_run_the_image(connection, tmp_path, capsys):
    out = tmp_path / "image"
    assert main(["flow", "build", "chat", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{out} contains " in printed
    assert " files for 1 key that this machine knows: as text, base64 and UTF-16" in printed
    assert f"docker build -t phi3-chat {out}\n" in printed
    assert "docker run -p 127.0.0.1:8080:8080 -e PHI3_KEY phi3-chat\n" in printed
    assert main(["flow", "build", "chat", "--out", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err
