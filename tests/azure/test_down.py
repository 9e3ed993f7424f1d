"""`phi3 down` after `phi3 deploy` and `phi3 connect`: deletions, kept resources, waiting."""

from __future__ import annotations

import pytest

from azure_fixtures import plant
from phi3_ops.azure import teardown
from phi3_ops.pf.connections import connection_key, load_connection, save_connection

NEVER = 10**6  # polls until an operation ends


@pytest.fixture(autouse=True)
def short_polls(monkeypatch):
    monkeypatch.setattr(teardown, "POLL_S", 0.01)


@pytest.fixture
def connected(serving, phi3):
    assert serving.deploy("one").code == 0
    assert phi3("connect", "--azure").code == 0
    return serving


def test_the_local_connection_is_deleted_and_the_model_stays(connected, phi3):
    done = phi3("down", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "kept     models phi3-finetuned:1: they cost no more than their storage" in done.out
    assert "deleted local connection phi3" in done.out
    assert load_connection("phi3") is None
    assert connected.models == ["one"]


def test_a_local_connection_to_another_endpoint_stays(connected, phi3):
    save_connection(
        "phi3", {"endpoint": "https://other.eastus2.inference.ml.azure.com/score"}, "key"
    )
    done = phi3("down", "--yes")
    assert done.code == 0
    assert "local connection" not in done.out
    assert connection_key("phi3") == "key"


def test_the_local_connection_stays_with_its_endpoint(connected, phi3):
    endpoint = "onlineEndpoints/phi3-endpoint"
    body = {"tags": {}, "properties": {"endpointComputeType": "Managed"}}
    plant(connected.azure, f"{endpoint}/deployments/theirs", body)
    done = phi3("down", "--yes")
    assert "kept     endpoint phi3-endpoint: theirs would be deleted with it" in done.out
    assert "kept     local connection phi3: its endpoint stays" in done.out
    assert connection_key("phi3") in connected.keys


def test_the_endpoint_alone_leaves_both_connections(connected, phi3):
    assert "local connection" not in phi3("down", "--endpoint-only", "--yes").out
    assert load_connection("phi3") is not None
    assert len(connected.of("connections")) == 1


@pytest.mark.parametrize("count", range(1, 8))
def test_killed_after_any_write_the_next_run_completes(connected, phi3, kill_after, count):
    kill_after(count)
    killed = phi3("down", "--yes")
    writes = connected.azure.writes()
    kill_after(0)
    assert phi3("down", "--yes").code == 0
    assert killed.code == 1 and [write.method for write in writes[-count:]] == ["DELETE"] * count
    for kind in ("onlineEndpoints", "computes", "connections", "userAssignedIdentities"):
        assert connected.of(kind) == [], kind
    assert load_connection("phi3") is None
    assert connected.models == ["one"]


def test_a_deletion_under_way_is_awaited(connected, phi3, kill_after):
    connected.azure.polls = 20
    kill_after(1)
    assert phi3("down", "--endpoint-only", "--yes").code == 1
    kill_after(0)
    done = phi3("down", "--endpoint-only", "--yes")
    connected.azure.polls = 1
    assert (done.code, done.err) == (0, "")
    assert "whose deletion has begun" in done.out
    assert connected.of("onlineEndpoints") == []
    assert [write.method for write in connected.azure.writes()].count("DELETE") == 1


def test_a_deletion_that_does_not_end_is_one_line(connected, phi3, kill_after, monkeypatch):
    connected.azure.polls = NEVER
    kill_after(1)
    assert phi3("down", "--endpoint-only", "--yes").code == 1
    kill_after(0)
    monkeypatch.setattr(teardown, "DELETION_S", 0.0)
    done = phi3("down", "--endpoint-only", "--yes")
    connected.azure.polls = 1
    assert done.code == 1
    assert "the endpoint phi3-endpoint still exists (Deleting). Look at it in the" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.finding(
    1,
    "`phi3 down` deletes a local connection that was pointed elsewhere after the question",
    "the connection is checked again, and stays",
)
def test_a_local_connection_that_changes_meanwhile_stays(connected, phi3, monkeypatch):
    """Between the plan and its last step, a deletion takes minutes."""
    delete_endpoint = teardown.DELETE["endpoint"]

    def change_and_delete(cloud, item):
        save_connection("phi3", {"endpoint": "https://other.azure.com/score"}, "key")
        return delete_endpoint(cloud, item)

    monkeypatch.setitem(teardown.DELETE, "endpoint", change_and_delete)
    assert phi3("down", "--yes").code == 0
    assert connection_key("phi3") == "key"
