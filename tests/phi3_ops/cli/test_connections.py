"""`phi3 connections` lists connections without secrets, and `phi3 connect` copies Prompt flow's."""

from __future__ import annotations

import json

import pytest

from phi3_ops.cli import main
from phi3_ops.pf.connections import delete_connection, save_connection

URL = "http://127.0.0.1:9/score?code=secret-in-the-query"


@pytest.fixture
def saved():
    save_connection("listed", {"endpoint": URL, "contract": "chat"}, "very-secret-key")
    yield
    delete_connection("listed")


def test_the_list_has_no_secrets(saved, capsys):
    assert main(["connections"]) == 0
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("listed")]
    assert line.split() == ["listed", "promptflow", "127.0.0.1:9/score", "contract", "chat"]
    assert "secret" not in output


def test_json(saved, capsys):
    assert main(["connections", "--json"]) == 0
    output = capsys.readouterr().out
    items = json.loads(output)["items"]
    (item,) = [item for item in items if item["name"] == "listed"]
    assert item["other_fields"] == {"contract": "chat"} and "secret" not in output


def test_delete(saved, capsys):
    assert main(["connections", "--delete", "listed"]) == 0
    assert main(["connections", "--delete", "listed"]) == 1
    output = capsys.readouterr()
    assert output.out == "deleted 'listed'\n"
    assert "the connection 'listed' does not exist. `phi3 connections` lists" in output.err


def test_import(saved, capsys):
    assert main(["connect", "--import-promptflow"]) == 0
    assert "listed" in capsys.readouterr().out
    assert main(["connections"]) == 0
    output = capsys.readouterr().out
    assert sum(line.startswith("listed ") for line in output.splitlines()) == 2
    assert "secret" not in output
