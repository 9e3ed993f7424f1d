"""The arithmetic of moving traffic."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_ops.deploy import rollout
from phi3_ops.deploy.rollout import RolloutOptions, split_traffic, wait_until_settled
from phi3_ops.errors import OpsError


@pytest.mark.parametrize(
    ("before", "share", "after"),
    [
        ({}, 100, {"new": 100}),
        ({"old": 100}, 10, {"old": 90, "new": 10}),
        ({"old": 100}, 100, {"new": 100}),
        ({"a": 50, "b": 50}, 10, {"a": 45, "b": 45, "new": 10}),
        ({"old": 90, "new": 10}, 50, {"old": 50, "new": 50}),
    ],
)
def test_shares(before, share, after):
    assert split_traffic(before, "new", share) == after


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 100), min_size=1), st.integers(1, 100)
)
def test_traffic_always_sums_to_100(before, share):
    after = split_traffic(before, "new", share)
    assert sum(after.values()) == 100
    assert all(value >= 0 for value in after.values())
    assert after["new"] >= share


@pytest.mark.parametrize("canary", [(), (10, 50), (50, 10, 100), (0, 100), (10, 10, 100)])
def test_steps_that_do_not_rise_to_100_are_refused(canary):
    with pytest.raises(OpsError, match="canary"):
        RolloutOptions(canary=canary)


@pytest.mark.parametrize("mirror", [-1, 51])
def test_azures_limit_of_mirrored_traffic(mirror):
    with pytest.raises(OpsError, match="mirror"):
        RolloutOptions(mirror=mirror)


def test_a_change_that_never_ends_is_not_waited_for_without_limit(monkeypatch):
    monkeypatch.setattr(rollout, "SETTLE_S", 0.0)
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    stuck = SimpleNamespace(name="e", provisioning_state="Updating")
    with pytest.raises(OpsError, match="e has been Updating"):
        wait_until_settled(lambda: stuck)


def test_a_change_under_way_is_waited_for(monkeypatch):
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    states = iter(["Creating", "Updating", "Succeeded"])
    found = wait_until_settled(lambda: SimpleNamespace(name="e", provisioning_state=next(states)))
    assert found.provisioning_state == "Succeeded"
