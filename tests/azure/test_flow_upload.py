"""`phi3 flow upload`, `list` and `pull`: promptflow's own client against the fake Azure."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from flow_uploads import KEY, ids, raise_version, share, upload, uploaded
from phi3_ops.flows.content import content_hash
from phi3_ops.flows.lock import LOCK_FILE, lock_flows
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.publish.retirement import retirement_notice

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "azure"


def test_exactly_the_staged_files_are_uploaded(service, phi3, home):
    out = upload(phi3, home)
    assert "created flow chat-v1.0.0 in ws-one" in out
    wheel = next(name for name in share(service) if name.endswith(".whl"))
    names = {"flow.dag.yaml", "samples.jsonl", "requirements.txt", wheel}
    assert set(share(service)) == {*names, ".promptflow/flow.tools.json"}
    assert share(service)["requirements.txt"].decode() == f"./{wheel}[promptflow]\n"
    assert share(service)["flow.dag.yaml"].startswith((home / "chat/flow.dag.yaml").read_bytes())
    assert not any(KEY.encode() in content for content in share(service).values())
    assert "phi3_chat" in share(service)[".promptflow/flow.tools.json"].decode()


def test_the_end_of_the_service_is_said(service, phi3, home):
    done = phi3("flow", "upload", "chat", "--folder", home, "--dry-run")
    assert (done.code, done.err.splitlines()[-1]) == (0, retirement_notice())


def test_the_create_request(service, phi3, home):
    upload(phi3, home)
    (sent,) = [each for each in service.requests if re.search("/flow/api/.*/Flows$", each.path)]
    text = json.dumps({"method": sent.method, "path": sent.path, "body": sent.body})
    for pattern, placeholder in (
        (service.subscription, "<subscription>"),
        (service.client, "<user>"),
        (r"(?<=-v1\.0\.0)-[\d-]+", "-<time>"),
        (r"\b[0-9a-f]{64}\b", "<hash>"),
    ):
        text = re.sub(pattern, placeholder, text)
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


def test_an_interrupted_upload_is_completed_by_the_next(service, phi3, home):
    before = (home / LOCK_FILE).read_bytes()
    upload(phi3, home)
    (home / LOCK_FILE).write_bytes(before)  # as if it had ended before the id was written
    out = upload(phi3, home)
    assert "noted its id" in out and "created flow" not in out
    assert ids(home) == {"1.0.0": [uploaded(service)[0]["flowId"]]}


def test_a_deleted_flow_is_uploaded_again(service, phi3, home):
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


def test_a_version_that_is_uploaded_with_other_content_is_refused(service, phi3, home):
    upload(phi3, home)
    uploaded(service)[0]["tags"]["sha256"] = "0" * 64
    done = phi3("flow", "upload", "chat", "--folder", home)
    assert done.code == 1
    assert "is already uploaded with other content" in done.err
    assert len(uploaded(service)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda home: (home / LOCK_FILE).unlink(), "is not locked. Run `phi3 flow lock`"),
        (lambda home: (home / "chat" / "new.txt").write_text("x"), "locked with other content"),
        (lambda home: shutil.move(home / "chat", home / "talk"), "does not contain a flow 'chat'"),
        (lambda home: older_tools(home), "locked with the tools of phi3-promptflow 0.0.1"),
        (lambda home: broken(home), "phi3_tools.nothing, which is not installed"),
        (lambda home: with_key(home), "notes.txt contains the key of phi3"),
    ],
)
def test_bad_input_is_an_error_of_one_line_and_nothing_is_sent(
    service, phi3, home, change, message
):
    change(home)
    done = phi3("flow", "upload", "chat", "--folder", home)
    delete_connection("phi3")
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert message in line and KEY not in line
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
def test_a_refusal_is_an_error_and_the_lock_stays(service, phi3, home, path):
    service.fail("", path, 403, times=None)
    before = (home / LOCK_FILE).read_bytes()
    done = phi3("flow", "upload", "chat", "--folder", home)
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert "Ask the subscription's owner" in line
    assert (home / LOCK_FILE).read_bytes() == before


def test_the_list_compares_local_and_uploaded_flows(service, phi3, home):
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


def test_the_uploaded_files_are_downloaded_again(service, phi3, home, tmp_path):
    upload(phi3, home)
    done = phi3("flow", "pull", "chat", "--folder", home, "--out", tmp_path / "back")
    assert done.code == 0, done.err
    assert "it is the same as the files that" in done.out
    back = tmp_path / "back"
    files = {
        path.relative_to(back).as_posix(): path.read_bytes()
        for path in back.rglob("*")
        if path.is_file()
    }
    assert files == share(service)
    again = phi3("flow", "pull", "chat", "--folder", home, "--out", back)
    assert again.code == 1 and "is not empty" in again.err


def test_a_pull_prints_the_differences(service, phi3, home):
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
    ("words", "message"),
    [
        (
            ("chat", "--version", "9.9.9"),
            "chat 9.9.9 is not uploaded. Uploaded versions of chat: 1.0.0.",
        ),
        (("qa",), "qa is not uploaded. Uploaded versions of qa: none."),
    ],
)
def test_a_pull_of_a_missing_version(service, phi3, home, words, message):
    upload(phi3, home)
    done = phi3("flow", "pull", *words, "--folder", home)
    assert done.code == 1 and message in done.err
    assert not Path(".phi3").exists()
