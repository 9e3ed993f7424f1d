"""What a version must prove before it is promoted: where it is uploaded, and which run is its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.flows.lock import lock_flows
from phi3_ops.publish import promote
from phi3_ops.publish.connection_fields import ConnectionFields
from phi3_ops.publish.project import upload_tags
from phi3_ops.publish.promote import gate_reasons, refuse_other_run, refuse_unfit_version
from phi3_ops.publish.stage import require_locked

ENDPOINT = "https://prod.example.com/score"


@pytest.fixture
def state(home):
    lock_flows(home)
    return require_locked("chat", home)


@pytest.fixture
def target(project, monkeypatch):
    """A workspace whose connection leads to `ENDPOINT`."""
    fields = ConnectionFields({"endpoint": ENDPOINT})
    monkeypatch.setattr(promote, "shared_connection", lambda cloud, name: fields)
    return project(workspace="ws-prod")


def run_with(**facts):
    """A run of scores whose base run records these facts."""
    return SimpleNamespace(name="mine", asked=SimpleNamespace(facts=facts), scored=None)


def facts_of(state, endpoint="prod.example.com/score"):
    return {"flow content": state.sha256[:12], "chat.connection.endpoint": endpoint}


def test_an_uploaded_version_is_fit(project, uploaded, state, target):
    refuse_unfit_version(state, project(uploaded("id-1", upload_tags(state))), target)


def test_a_version_must_be_uploaded_to_the_source(project, state, target):
    with pytest.raises(OpsError, match="chat-v1.0.0 is not in ws-one. Run `phi3 flow upload`"):
        refuse_unfit_version(state, project(), target)


def test_the_environments_must_differ(project, state):
    with pytest.raises(OpsError, match="both environments are the workspace s/rg/ws-one"):
        refuse_unfit_version(state, project(), project())


def test_a_run_of_this_version_against_this_endpoint_is_accepted(state, target):
    refuse_other_run(state, target, run_with(**facts_of(state)))


def test_without_a_base_run_the_scored_run_has_the_facts(state, target):
    scored = SimpleNamespace(facts=facts_of(state))
    refuse_other_run(state, target, SimpleNamespace(name="mine", asked=None, scored=scored))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"flow content": "0" * 12},
            "the run mine has other content (000000000000); chat-v1.0.0 is",
        ),
        ({"flow content": None}, "the run mine does not record its flow; chat-v1.0.0 is"),
        (
            {"chat.connection.endpoint": "dev.example.com/score"},
            "the run mine used dev.example.com/score; the connection 'phi3' in ws-prod is "
            "prod.example.com/score",
        ),
        ({"chat.connection.endpoint": None}, "the run mine does not record its endpoint; the"),
    ],
)
def test_another_run_is_refused(state, target, changes, message):
    facts = {key: value for key, value in (facts_of(state) | changes).items() if value}
    with pytest.raises(OpsError) as caught:
        refuse_other_run(state, target, run_with(**facts))
    assert message in str(caught.value)
    assert "Run chat-v1.0.0 with `phi3 run`" in caught.value.fix


def test_a_connection_without_an_endpoint_is_refused(state, target, monkeypatch):
    monkeypatch.setattr(promote, "shared_connection", lambda cloud, name: ConnectionFields())
    with pytest.raises(OpsError, match="'phi3' in ws-prod is without an endpoint"):
        refuse_other_run(state, target, run_with(**facts_of(state)))


def test_the_reasons_have_a_line_per_gate_and_the_verdict():
    gate = SimpleNamespace(verdict="pass", reason="at most 0.01 worse")
    comparison = SimpleNamespace(
        comparisons=[
            SimpleNamespace(metric="exact_match", gate=gate),
            SimpleNamespace(metric="length", gate=None),
        ],
        gate=SimpleNamespace(verdict="pass"),
    )
    assert gate_reasons(comparison) == [
        "gate exact_match: pass (at most 0.01 worse)",
        "gate: pass",
    ]
