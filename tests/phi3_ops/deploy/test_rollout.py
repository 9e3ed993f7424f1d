"""A rollout against stand-ins for Azure: the order of its steps, traffic, and what a failure leaves."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from offline_cloud import missing, offline_cloud, poller
from phi3_ops.azure.config import EndpointConfig
from phi3_ops.deploy import rollout
from phi3_ops.deploy.rollout import (
    Deployment,
    Rollout,
    RolloutOptions,
    SmokeAnswer,
    content_hash,
    content_name,
    split_traffic,
    wait_until_settled,
)
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
def test_traffic_with_a_share_for_the_new_deployment(before, share, after):
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
def test_canary_steps_that_do_not_rise_to_100_are_refused(canary):
    with pytest.raises(OpsError, match="canary"):
        RolloutOptions(canary=canary)


@pytest.mark.parametrize("mirror", [-1, 51])
def test_azures_limit_for_mirrored_traffic(mirror):
    with pytest.raises(OpsError, match="mirror"):
        RolloutOptions(mirror=mirror)


def test_waiting_for_a_change_has_a_limit(monkeypatch):
    monkeypatch.setattr(rollout, "SETTLE_S", 0.0)
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    stuck = SimpleNamespace(name="e", provisioning_state="Updating")
    with pytest.raises(OpsError, match="e has been Updating"):
        wait_until_settled(lambda: stuck)


def test_a_change_under_way_is_awaited(monkeypatch):
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    states = iter(["Creating", "Updating", "Succeeded"])
    settled = wait_until_settled(lambda: SimpleNamespace(name="e", provisioning_state=next(states)))
    assert settled.provisioning_state == "Succeeded"


def test_a_resource_that_does_not_exist_is_settled():
    assert wait_until_settled(lambda: None) is None


def test_the_same_content_has_the_same_name():
    assert content_name(["a", "b"]) == content_name(["a", "b"]) == f"d-{content_hash(['a', 'b'])}"
    assert len({content_name(parts) for parts in (["ab"], ["a", "b"], ["b", "a"])}) == 3


class Azure:
    """One endpoint and its deployments, with the operations that a rollout uses."""

    def __init__(self):
        self.endpoint = None
        self.deployments = {}
        self.calls = []
        self.failure = None
        self.ml = SimpleNamespace(
            online_endpoints=Endpoints(self), online_deployments=Deployments(self)
        )


class Endpoints:
    def __init__(self, azure):
        self.azure = azure

    def get(self, name):
        from azure.core.exceptions import ResourceNotFoundError

        if self.azure.endpoint is None:
            raise ResourceNotFoundError(name)
        return self.azure.endpoint

    def get_keys(self, name):
        return SimpleNamespace(primary_key="key")

    def begin_create_or_update(self, endpoint):
        self.azure.endpoint = SimpleNamespace(
            name=endpoint.name,
            provisioning_state="Succeeded",
            scoring_uri="https://e.eastus2.inference.ml.azure.com/score",
            traffic=dict(endpoint.traffic or {}),
            mirror_traffic=dict(endpoint.mirror_traffic or {}),
        )
        self.azure.calls.append(
            ("traffic", dict(endpoint.traffic or {}), dict(endpoint.mirror_traffic or {}))
        )
        return poller()


class Deployments:
    def __init__(self, azure):
        self.azure = azure

    def list(self, endpoint):
        return self.azure.deployments.values()

    def begin_create_or_update(self, definition):
        self.azure.calls.append(("create", definition.name, definition.files_exist()))
        state = "Failed" if self.azure.failure else "Succeeded"
        self.azure.deployments[definition.name] = SimpleNamespace(
            name=definition.name, provisioning_state=state
        )
        if self.azure.failure:
            raise self.azure.failure
        return poller()

    def begin_delete(self, name, endpoint):
        self.azure.calls.append(("delete", name))
        del self.azure.deployments[name]
        return poller()

    def get_logs(self, name, endpoint, lines):
        return "first\nno GPU was found"


class New(Deployment):
    """A deployment whose answers a test prepares: texts, or errors to raise."""

    endpoint = EndpointConfig(name="endpoint-one")
    name = "new"

    def __init__(self):
        self.answers = []
        self.asked = []
        self.open = False

    def steps(self):
        return []

    @contextlib.contextmanager
    def definition(self):
        self.open = True
        yield SimpleNamespace(name=self.name, files_exist=lambda: self.open)
        self.open = False

    def ask(self, scoring_uri, auth, deployment):
        self.asked.append((scoring_uri.split("/")[2], auth.header(), deployment))
        answer = self.answers.pop(0) if self.answers else "yes"
        if isinstance(answer, Exception):
            raise answer
        return SmokeAnswer(answer, 0.5)


class Stage:
    """A rollout, its Azure and its output."""

    def __init__(self, **options):
        self.azure, self.new, self.lines = Azure(), New(), []
        cloud = offline_cloud({"ml": self.azure.ml, "rest": missing})
        options = RolloutOptions(**{"drain_s": 0, **options})
        self.rollout = Rollout(cloud, options, self.new, self.lines.append)

    def live(self):
        """Let a deployment `old` have all the traffic."""
        self.azure.deployments["old"] = SimpleNamespace(name="old", provisioning_state="Succeeded")
        endpoint = SimpleNamespace(name="endpoint-one", traffic={"old": 100}, mirror_traffic={})
        self.azure.ml.online_endpoints.begin_create_or_update(endpoint)
        self.azure.calls.clear()
        return self

    def run(self):
        self.rollout.plan().run(Console(file=io.StringIO()))

    @property
    def traffic(self):
        return {name: share for name, share in self.azure.endpoint.traffic.items() if share}


class TestFirstRollout:
    def test_everything_is_created_in_order(self):
        stage = Stage()
        stage.run()
        kinds = [call[0] for call in stage.azure.calls]
        assert kinds == ["traffic", "create", "traffic"]
        assert stage.traffic == {"new": 100}
        host = "e.eastus2.inference.ml.azure.com"
        assert stage.new.asked == [(host, "Bearer key", "new"), (host, "Bearer key", None)]

    def test_a_second_run_changes_nothing(self):
        stage = Stage()
        stage.run()
        stage.azure.calls.clear()
        stage.run()
        assert stage.azure.calls == []

    def test_the_files_of_the_definition_exist_while_azure_reads_them(self):
        stage = Stage()
        stage.run()
        assert ("create", "new", True) in stage.azure.calls
        assert not stage.new.open

    def test_an_empty_answer_is_a_failure_without_traffic(self):
        stage = Stage()
        stage.new.answers = [" "]
        with pytest.raises(OpsError, match="new gave an empty answer"):
            stage.run()
        assert stage.traffic == {}

    def test_a_failed_deployment_is_removed_and_its_log_printed(self):
        from azure.core.exceptions import HttpResponseError

        stage = Stage()
        stage.azure.failure = HttpResponseError("It crashed.")
        with pytest.raises(OpsError, match="create deployment new .*It crashed"):
            stage.run()
        assert "  | no GPU was found" in stage.lines
        assert stage.azure.deployments == {}

    def test_a_failed_deployment_that_cannot_be_deleted_is_named(self, monkeypatch):
        from azure.core.exceptions import HttpResponseError

        def refuse(rollout, name):
            raise HttpResponseError("You may not.")

        stage = Stage()
        stage.azure.failure = HttpResponseError("It crashed.")
        monkeypatch.setattr(rollout.Rollout, "_delete", refuse)
        with pytest.raises(OpsError, match="create deployment new .*It crashed"):
            stage.run()
        (line,) = [line for line in stage.lines if "still paid for" in line]
        assert "the deployment new could not be deleted" in line and "You may not." in line


class TestBesideALiveDeployment:
    def test_traffic_moves_in_steps_and_the_old_deployment_is_deleted(self):
        stage = Stage(canary=(10, 100)).live()
        stage.run()
        shares = [call[1]["new"] for call in stage.azure.calls if call[0] == "traffic"]
        assert shares == [10, 100]
        assert stage.azure.calls[-1] == ("delete", "old")
        assert "  traffic: old 90 %, new 10 %" in stage.lines
        assert "  new answers in 0.50 s: 'yes'" in stage.lines

    def test_a_mirror_comes_first(self):
        stage = Stage(canary=(100,), mirror=20).live()
        stage.run()
        first, second = (call[1:] for call in stage.azure.calls if call[0] == "traffic")
        assert first == ({"old": 100, "new": 0}, {"new": 20})
        assert second == ({"old": 0, "new": 100}, {})

    def test_the_old_deployment_may_stay(self):
        stage = Stage(canary=(100,), keep_old=True).live()
        stage.run()
        assert sorted(stage.azure.deployments) == ["new", "old"]

    @pytest.mark.parametrize("passed", [0, 1, 2])
    def test_a_failed_smoke_test_puts_the_traffic_back(self, passed):
        stage = Stage(canary=(10, 100)).live()
        stage.new.answers = ["yes"] * passed + [OpsError("no answer")]
        with pytest.raises(OpsError, match="no answer"):
            stage.run()
        assert stage.traffic == {"old": 100}
        assert sorted(stage.azure.deployments) == ["new", "old"]

    def test_traffic_that_cannot_be_put_back_is_reported_with_the_first_error(self, monkeypatch):
        stage = Stage(canary=(10, 100)).live()
        stage.new.answers = ["yes", OpsError("no answer")]
        set_traffic = stage.rollout._set_traffic

        def once(traffic, mirror=None):
            if traffic == {"old": 100}:
                raise OpsError("refused")
            set_traffic(traffic, mirror)

        monkeypatch.setattr(stage.rollout, "_set_traffic", once)
        with pytest.raises(OpsError, match="no answer"):
            stage.run()
        assert "  the traffic could not be put back: refused" in stage.lines


def test_a_soak_comes_before_each_test(monkeypatch):
    waits = []
    monkeypatch.setattr(rollout.time, "sleep", waits.append)
    stage = Stage(soak_s=5)
    stage.run()
    assert waits == [5, 5]


def test_entra_signs_in_with_a_token():
    stage = Stage()
    stage.azure.endpoint = SimpleNamespace(
        scoring_uri="https://e.eastus2.inference.ml.azure.com/score"
    )
    stage.rollout.config = EndpointConfig(name="endpoint-one", auth="entra")
    assert type(stage.rollout._auth()).__name__ == "EntraAuth"
