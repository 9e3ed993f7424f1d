"""`phi3 flow promote`: a version reaches another workspace only if its comparison passes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from azure_fixtures import GROUP, plant
from documented_commands import documented
from flow_uploads import ids, upload, uploaded
from phi3_ops.pf.connections import delete_connection, save_connection

PROD = "/providers/Microsoft.MachineLearningServices/workspaces/ws-prod"
WORDS = ("Bill Gates and Paul Allen.", "56", "In Redmond.", "A spreadsheet.", "Yes, it is.", "1975")


@pytest.fixture
def environments(service, home, monkeypatch):
    """Two workspaces with their configurations; prod has a connection to an endpoint that echoes."""
    from echo_endpoint import KEY as ECHO_KEY
    from echo_endpoint import echo_endpoint
    from fake_azure import flows as routes

    for name, workspace in (("dev", "ws-one"), ("prod", "ws-prod")):
        lines = [
            "azure:",
            f"  subscription_id: {service.subscription}",
            f"  resource_group: {GROUP}",
            f"  workspace: {workspace}",
        ]
        Path(f"phi3.{name}.yaml").write_text("\n".join([*lines, ""]))
    for variable in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME"):
        monkeypatch.delenv(variable)
    routes.open_share(service, plant(service, PROD, {"properties": {}})["id"])
    with echo_endpoint() as endpoint:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, ECHO_KEY)
        properties = {
            "category": "CustomKeys",
            "authType": "CustomKeys",
            "metadata": {"endpoint": endpoint.url},
            "credentials": {"keys": {"key": ECHO_KEY}},
        }
        plant(service, f"{PROD}/connections/phi3", {"properties": properties})
        yield service
        delete_connection("phi3")


@pytest.fixture
def ran(phi3, home):
    """Runs a flow over data and scores it; returns the name of the run. The endpoint echoes."""
    rows = [{"question": "Pardon?", "ground_truth": words, "chat_history": []} for words in WORDS]
    data = Path("data.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows * 2))

    def run(asked_column, flow=home / "chat"):
        column = f"question=${{data.{asked_column}}}"
        words = ("--flow", flow, "--data", data, "--column-mapping", column, "--evaluate")
        done = phi3("run", *words)
        assert done.code == 0, done.err
        return done.out.split(":")[0]

    return run


def promote(phi3, home, *words):
    return phi3(
        "flow", "promote", "chat", "--from", "dev", "--to", "prod", "--folder", home, *words
    )


def stores():
    return Path(os.environ["PF_HOME_DIRECTORY"])


def in_prod(azure):
    return [each["flowName"] for each in uploaded(azure) if "ws-prod" in each["workspace"]]


@documented("phi3 flow promote …")
def test_a_version_is_promoted_only_if_its_comparison_passes(environments, phi3, home, ran):
    good, bad = ran("ground_truth"), ran("question")
    runs = ("--baseline", good, "--candidate", good)

    early = promote(phi3, home, *runs)  # it was never uploaded to dev
    assert early.code == 1 and "chat-v1.0.0 is not in ws-one" in early.err
    upload(phi3, home, "--config", "phi3.dev.yaml")

    worse = promote(phi3, home, "--baseline", good, "--candidate", bad)
    assert worse.code == 1
    assert "gate: regression" in worse.out and "is not promoted to prod" in worse.out
    assert in_prod(environments) == []

    dry = promote(phi3, home, *runs, "--dry-run")
    assert dry.code == 0 and "would create flow chat-v1.0.0 in ws-prod" in dry.out
    assert in_prod(environments) == []

    # As in CI: the last accepted scores, as a file.
    (scores,) = (stores() / ".runs").glob(f"{good}-eval-*/flow_outputs/output.jsonl")
    shutil.copy(scores, "baseline.jsonl")
    accepted = ("--baseline", "baseline.jsonl", "--data", "data.jsonl", "--candidate", good)
    done = promote(phi3, home, *accepted)
    assert done.code == 0, done.err
    assert "gate: pass" in done.out
    assert in_prod(environments) == ["chat-v1.0.0"]
    assert len(ids(home)["1.0.0"]) == 2  # one of each workspace


def test_a_run_of_another_flow_or_endpoint_is_refused(environments, phi3, home, ran, tmp_path):
    upload(phi3, home, "--config", "phi3.dev.yaml")
    good = ran("ground_truth")
    shutil.copytree(home / "chat", tmp_path / "other")
    with (tmp_path / "other" / "flow.dag.yaml").open("a") as file:
        file.write("# other\n")
    other = ran("ground_truth", tmp_path / "other")
    done = promote(phi3, home, "--baseline", good, "--candidate", other)
    assert done.code == 1 and f"the run {other} has other content" in done.err

    key = next(key for key in environments.resources if key.endswith("ws-prod/connections/phi3"))
    metadata = environments.resources[key]["properties"]["metadata"]
    metadata["endpoint"] = "https://prod.example.com/score"
    done = promote(phi3, home, "--baseline", good, "--candidate", good)
    assert done.code == 1
    assert "the connection 'phi3' in ws-prod is prod.example.com/score" in done.err
    assert in_prod(environments) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "its runs are missing. Give --baseline RUN and --candidate RUN"),
        (("--baseline", "a"), "its runs are missing"),
        (("--baseline", "a", "--candidate", "b", "--to", "test"), "phi3.test.yaml does not exist"),
        (("--baseline", "a", "--candidate", "b", "--to", "dev"), "both environments are the work"),
    ],
)
def test_a_promotion_without_its_runs_is_refused(environments, phi3, home, words, message):
    done = promote(phi3, home, *words)
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert message in line
    assert uploaded(environments) == []
