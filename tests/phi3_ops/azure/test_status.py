"""`phi3 status`: the resources of this product, and the machines that are paid for."""

from __future__ import annotations

import json

import pytest

from phi3_ops.azure.status import Status, StatusItem
from planted import FUTURE, PAST, SIZE, cluster, connection, deployment, endpoint, tags


@pytest.fixture
def serving(provisioned):
    """The resources of `provision`, `deploy` and `connect`."""
    endpoint(provisioned)
    deployment(provisioned)
    connection(provisioned)
    return provisioned


def item(kind, size="", instances=0):
    return StatusItem(kind, "n", size, instances, "Succeeded", None, "", "", "me")


def test_machines_are_counted_by_size():
    items = [item("endpoint"), item("deployment", "B", 2), item("cluster", "A", 1)]
    status = Status([*items, item("deployment", "B", 1), item("cluster", "C", 0)])
    assert list(status.hourly.items()) == [("A", 1), ("B", 3)]


class TestStatus:
    def test_nothing(self, azure, phi3):
        done = phi3("status")
        assert (done.code, done.out) == (0, "paid for by the hour: nothing\n")

    def test_the_table(self, serving, phi3):
        endpoint(serving, "their-endpoint", {})
        cluster(serving, "busy", tags(PAST), nodes=2)
        done = phi3("status")
        assert (done.code, done.err) == (0, "")
        lines = {" ".join(line.split()) for line in done.out.splitlines()}
        assert any(
            line.startswith(f"deployment blue {SIZE} x 1 Succeeded 100 % 2") for line in lines
        )
        assert any(line.startswith(f"cluster gpu-a100 {SIZE} x 0 Succeeded 2") for line in lines)
        assert f"paid for by the hour: {SIZE} x 3" in lines
        assert "their-endpoint" not in done.out
        assert serving.writes() == []

    def test_json(self, serving, phi3):
        document = json.loads(phi3("status", "--json").out)
        assert document["hourly"] == {SIZE: 1}
        kinds = {row["kind"]: row for row in document["items"]}
        assert set(kinds) == {"endpoint", "deployment", "cluster"}
        assert kinds["endpoint"]["expires"] == FUTURE
        assert (kinds["deployment"]["traffic"], kinds["deployment"]["owner"]) == (100, "me")
