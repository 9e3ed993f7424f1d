"""`phi3 flow upload`, `list` and `pull`: promptflow's own client against the fake."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from azure_fixtures import GROUP, plant
from phi3_ops import paths
from phi3_ops.flows.content import content_hash, copy_flow
from phi3_ops.flows.lock import LOCK_FILE, lock_flows
from phi3_ops.pf.connections import delete_connection, save_connection

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"
KEY = "a-key-of-the-model's-endpoint"
CACHES = {
    "__pycache__/x.pyc": "",
    ".env": f"KEY={KEY}",
    ".promptflow/chat.detail.json": "a prompt",
    ".venv/bin/python": "",
}


@pytest.fixture
def service(azure):
    """A workspace with an open file share."""
    from fake_azure import flows as service

    azure.create_group(GROUP)
    service.open_share(azure, plant(azure, "", {"properties": {}})["id"])
    return azure


@pytest.fixture
def home(tmp_path):
    """A folder with the chat flow, locked, and what must not leave this machine."""
    flow = tmp_path / "flows" / "chat"
    copy_flow(paths.FLOWS / "chat", flow)
    for name, text in CACHES.items():
        (flow / name).parent.mkdir(parents=True, exist_ok=True)
        (flow / name).write_text(text)
    lock_flows(flow.parent)
    return flow.parent


def uploaded(azure):
    return list(azure.flows.values())


def share(azure):
    """The files on the share, by their path in their flow's folder."""
    files = {path: content for path, content in azure.share.items() if content is not None}
    return {path.split("/", 4)[4]: content for path, content in files.items()}


def upload(phi3, home, *words):
    done = phi3("flow", "upload", "chat", "--folder", home, *words)
    assert done.code == 0, done.err
    return done.out


def raise_version(home, old="1.0.0", new="1.1.0"):
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace(f"version: {old}", f"version: {new}"))


def ids(home):
    lock = json.loads((home / LOCK_FILE).read_text())["chat"]
    return {number: list(entry.get("uploads", {}).values()) for number, entry in lock.items()}


def test_what_is_uploaded_and_nothing_else(service, phi3, home):
    out = upload(phi3, home)
    assert "created flow chat-v1.0.0 in ws-one" in out
    wheel = next(name for name in share(service) if name.endswith(".whl"))
    own = {"flow.dag.yaml", "samples.jsonl", "requirements.txt", wheel}
    assert set(share(service)) == {*own, ".promptflow/flow.tools.json"}
    assert share(service)["requirements.txt"].decode() == f"./{wheel}\n"
    assert share(service)["flow.dag.yaml"].startswith((home / "chat/flow.dag.yaml").read_bytes())
    assert not any(KEY.encode() in content for content in share(service).values())
    assert "phi3_chat" in share(service)[".promptflow/flow.tools.json"].decode()


def test_the_create_request(service, phi3, home):
    upload(phi3, home)
    (sent,) = [each for each in service.requests if re.search("/flow/api/.*/Flows$", each.path)]
    text = json.dumps({"method": sent.method, "path": sent.path, "body": sent.body})
    for pattern, shown in (
        (service.subscription, "<subscription>"),
        (service.client, "<user>"),
        (r"(?<=-v1\.0\.0)-[\d-]+", "-<time>"),
        (r"\b[0-9a-f]{64}\b", "<hash>"),
    ):
        text = re.sub(pattern, shown, text)
    file = GOLDEN / "flow-create.json"
    if os.environ.get("PHI3_WRITE_GOLDEN"):
        file.write_text(json.dumps(json.loads(text), indent=2) + "\n")
    assert json.loads(text) == json.loads(file.read_text())
    assert sent.body["tags"]["sha256"] == content_hash(home / "chat")


def test_the_id_is_locked_and_a_second_run_changes_nothing(service, phi3, home):
    upload(phi3, home)
    (flow,) = uploaded(service)
    assert ids(home) == {"1.0.0": [flow["flowId"]]}
    assert "nothing to change" in upload(phi3, home)
    assert len(uploaded(service)) == 1


def test_a_run_that_was_cut_is_completed_by_the_next(service, phi3, home):
    before = (home / LOCK_FILE).read_bytes()
    upload(phi3, home)
    (home / LOCK_FILE).write_bytes(before)  # as if it had ended before the id was noted
    out = upload(phi3, home)
    assert "noted its id" in out and "created flow" not in out
    assert ids(home) == {"1.0.0": [uploaded(service)[0]["flowId"]]}


def test_a_flow_that_is_gone_is_uploaded_again(service, phi3, home):

    upload(phi3, home)
    service.flows.clear()
    service.share.clear()
    service.share[""] = None
    upload(phi3, home)
    assert ids(home) == {"1.0.0": [uploaded(service)[0]["flowId"]]}


def test_a_new_version_is_a_new_flow(service, phi3, home):
    upload(phi3, home)
    raise_version(home)
    lock_flows(home)
    upload(phi3, home)
    assert [each["flowName"] for each in uploaded(service)] == ["chat-v1.0.0", "chat-v1.1.0"]
    first, second = (each["flowId"] for each in uploaded(service))
    assert ids(home) == {"1.0.0": [first], "1.1.0": [second]}


def test_a_dry_run_lists_files_and_sizes_and_sends_nothing(service, phi3, home):
    out = upload(phi3, home, "--dry-run")
    size = (home / "chat" / "samples.jsonl").stat().st_size
    assert re.search(rf"^ +{size:,}  samples\.jsonl$", out, re.MULTILINE)
    assert "would create flow chat-v1.0.0" in out and "would note its id" in out
    assert uploaded(service) == [] and share(service) == {}
    assert ids(home) == {"1.0.0": []}


def test_a_version_that_is_there_with_other_content_is_refused(service, phi3, home):
    upload(phi3, home)
    uploaded(service)[0]["tags"]["sha256"] = "0" * 64
    done = phi3("flow", "upload", "chat", "--folder", home)
    assert done.code == 1
    assert "is there with other content" in done.err
    assert len(uploaded(service)) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda home: (home / LOCK_FILE).unlink(), "is not locked. Run `phi3 flow lock`"),
        (lambda home: (home / "chat" / "new.txt").write_text("x"), "locked with other content"),
        (lambda home: shutil.move(home / "chat", home / "talk"), "no flow 'chat'"),
        (lambda home: older_tools(home), "locked with the tools of phi3-promptflow 0.0.1"),
        (lambda home: broken(home), "phi3_tools.nothing, which is no tool here"),
        (lambda home: with_key(home), "notes.txt contains the key of phi3"),
    ],
)
def test_bad_input_is_told_in_a_line_and_nothing_is_sent(service, phi3, home, change, told):
    change(home)
    done = phi3("flow", "upload", "chat", "--folder", home)
    delete_connection("phi3")
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert told in line and KEY not in line
    assert share(service) == {}


def older_tools(home):
    lock = (home / LOCK_FILE).read_text()
    (home / LOCK_FILE).write_text(re.sub('"tools": ".*?"', '"tools": "0.0.1"', lock))


def broken(home):
    raise_version(home)
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace("phi3_tools.pf_tools.phi3_chat", "phi3_tools.nothing"))
    lock_flows(home)


def with_key(home):
    save_connection("phi3", {"endpoint": "http://127.0.0.1:9/score"}, KEY)
    raise_version(home)
    (home / "chat" / "notes.txt").write_text(KEY)
    lock_flows(home)


@pytest.mark.parametrize("path", ["/flow/api/", "file.core.windows.net"])
def test_a_refusal_is_told_and_the_lock_stays(service, phi3, home, path):
    service.fail("", path, 403, times=None)
    before = (home / LOCK_FILE).read_bytes()
    done = phi3("flow", "upload", "chat", "--folder", home)
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert "Ask the subscription's owner" in line
    assert (home / LOCK_FILE).read_bytes() == before


def test_the_list_shows_what_is_here_and_there(service, phi3, home):
    def lines():
        done = phi3("flow", "list", "--azure", "--folder", home)
        assert done.code == 0, done.err
        return [re.split(" {2,}", line.strip()) for line in done.out.splitlines()[1:]]

    assert lines() == [["chat", "1.0.0", "locked", "not uploaded", "–"]]
    upload(phi3, home)
    (name,) = ids(home)["1.0.0"]
    assert lines() == [["chat", "1.0.0", "locked", "uploaded", name]]
    with (home / "chat" / "flow.dag.yaml").open("a") as file:
        file.write("# changed\n")
    assert lines() == [["chat", "1.0.0", "changed", "other content", name]]
    raise_version(home)
    assert lines() == [
        ["chat", "1.1.0", "not locked", "not uploaded", "–"],
        ["chat", "1.0.0", "not here", "uploaded", name],
    ]


def test_what_was_uploaded_comes_back(service, phi3, home, tmp_path):
    upload(phi3, home)
    done = phi3("flow", "pull", "chat", "--folder", home, "--out", tmp_path / "back")
    assert done.code == 0, done.err
    assert "would be uploaded as" in done.out
    back = tmp_path / "back"
    files = {
        path.relative_to(back).as_posix(): path.read_bytes()
        for path in back.rglob("*")
        if path.is_file()
    }
    assert files == share(service)
    again = phi3("flow", "pull", "chat", "--folder", home, "--out", back)
    assert again.code == 1 and "is not empty" in again.err


def test_a_pull_shows_what_differs(service, phi3, home):
    upload(phi3, home)
    dag = home / "chat" / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace("temperature: 0.7", "temperature: 0.1"))
    (home / "chat" / "samples.jsonl").unlink()
    done = phi3("flow", "pull", "chat", "--folder", home)
    assert done.code == 0, done.err
    assert "-    temperature: 0.1\n+    temperature: 0.7\n" in done.out
    assert "+++ uploaded/samples.jsonl" in done.out
    assert ".whl" not in done.out
    assert (Path(".phi3/flows/chat") / "samples.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("chat", "--version", "9.9.9"), "no upload of chat 9.9.9. Versions of chat there: 1.0.0."),
        (("qa",), "no upload of qa. Versions of qa there: none."),
    ],
)
def test_a_pull_of_what_is_not_there(service, phi3, home, words, told):
    upload(phi3, home)
    done = phi3("flow", "pull", *words, "--folder", home)
    assert done.code == 1 and told in done.err
    assert not Path(".phi3").exists()


# -- promote ---------------------------------------------------------------------------------------

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
    """Runs a flow over data and scores it; the run's name. The endpoint answers what it is asked."""
    rows = [{"question": "Pardon?", "ground_truth": words, "chat_history": []} for words in WORDS]
    data = Path("data.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows * 2))

    def run(asked, flow=home / "chat"):
        column = f"question=${{data.{asked}}}"
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


def test_a_version_is_promoted_only_if_its_comparison_passes(environments, phi3, home, ran):
    good, bad = ran("ground_truth"), ran("question")
    runs = ("--baseline", good, "--candidate", good)

    early = promote(phi3, home, *runs)  # it was never tried in dev
    assert early.code == 1 and "chat-v1.0.0 is not in ws-one" in early.err
    upload(phi3, home, "--config", "phi3.dev.yaml")

    worse = promote(phi3, home, "--baseline", good, "--candidate", bad)
    assert worse.code == 1
    assert "gate: regression" in worse.out and "is not promoted to prod" in worse.out
    assert in_prod(environments) == []

    dry = promote(phi3, home, *runs, "--dry-run")
    assert dry.code == 0 and "would create flow chat-v1.0.0 in ws-prod" in dry.out
    assert in_prod(environments) == []

    # As in CI: the scores that were accepted last, as a file.
    (scores,) = (stores() / ".runs").glob(f"{good}-eval-*/flow_outputs/output.jsonl")
    shutil.copy(scores, "baseline.jsonl")
    accepted = ("--baseline", "baseline.jsonl", "--data", "data.jsonl", "--candidate", good)
    done = promote(phi3, home, *accepted)
    assert done.code == 0, done.err
    assert "gate: pass" in done.out
    assert in_prod(environments) == ["chat-v1.0.0"]
    assert len(ids(home)["1.0.0"]) == 2  # one of each workspace


def test_a_run_of_something_else_proves_nothing(environments, phi3, home, ran, tmp_path):
    upload(phi3, home, "--config", "phi3.dev.yaml")
    good = ran("ground_truth")
    shutil.copytree(home / "chat", tmp_path / "other")
    with (tmp_path / "other" / "flow.dag.yaml").open("a") as file:
        file.write("# other\n")
    other = ran("ground_truth", tmp_path / "other")
    done = promote(phi3, home, "--baseline", good, "--candidate", other)
    assert done.code == 1 and f"the run {other} is of other content" in done.err

    place = next(key for key in environments.resources if key.endswith("ws-prod/connections/phi3"))
    metadata = environments.resources[place]["properties"]["metadata"]
    metadata["endpoint"] = "https://prod.example.com/score"
    done = promote(phi3, home, "--baseline", good, "--candidate", good)
    assert done.code == 1
    assert "the connection 'phi3' in ws-prod is prod.example.com/score" in done.err
    assert in_prod(environments) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "no runs for it are named. Give --baseline RUN and --candidate RUN"),
        (("--baseline", "a"), "no runs for it are named"),
        (("--baseline", "a", "--candidate", "b", "--to", "test"), "no file phi3.test.yaml"),
        (("--baseline", "a", "--candidate", "b", "--to", "dev"), "both environments are the work"),
    ],
)
def test_a_promotion_without_its_proof_is_refused(environments, phi3, home, words, told):
    done = promote(phi3, home, *words)
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert told in line
    assert uploaded(environments) == []
