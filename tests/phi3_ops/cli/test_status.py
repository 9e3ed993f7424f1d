"""`phi3 status`: its table and its JSON."""

from __future__ import annotations

import json

import pytest

from offline_cloud import write_config
from phi3_ops import azure
from phi3_ops.azure.status import Status, StatusItem
from phi3_ops.cli import main

ENDPOINT = StatusItem("endpoint", "e", "", 0, "Succeeded", None, "2026-01-01", "2026-02-01", "me")
DEPLOYMENT = StatusItem("deployment", "d", "S", 2, "Updating", 90, "2026-01-01", "", "me")


@pytest.fixture
def items(monkeypatch, tmp_path):
    """The resources in the workspace; the test fills them in."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    items = []
    monkeypatch.setattr(azure, "read_status", lambda cloud: Status(items))
    return items


def test_the_table(items, capsys):
    items += [ENDPOINT, DEPLOYMENT]
    assert main(["status"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["kind", "name", "machines", "state", "traffic", "since", "expires", "owner"],
        ["endpoint", "e", "Succeeded", "2026-01-01", "2026-02-01", "me"],
        ["deployment", "d", "S", "x", "2", "Updating", "90", "%", "2026-01-01", "me"],
        ["paid", "for", "by", "the", "hour:", "S", "x", "2"],
    ]


def test_nothing(items, capsys):
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "paid for by the hour: nothing\n"


def test_json(items, capsys):
    items.append(DEPLOYMENT)
    assert main(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["hourly"] == {"S": 2}
    (row,) = document["items"]
    assert list(row) == [
        *("kind", "name", "size", "instances", "state", "traffic", "since", "expires", "owner"),
        "scale",
    ]
    assert (row["kind"], row["traffic"]) == ("deployment", 90)
