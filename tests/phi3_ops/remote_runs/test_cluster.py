"""Jobs on a cluster: the hash of their content, and the files of their environment."""

from __future__ import annotations

import json

import pytest
import yaml

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.remote_runs.cluster import ENTRY_SCRIPT, REQUIREMENTS, _flow_requirements

OTHERS = (
    {"instances": 2},
    {"retries": 1},
    {"mini_batch_size": 1},
    {"in_flight": 1},
    {"compute": "cpu"},
    {"title": "again"},
    {"columns": {"input_data": "constant"}},
    {"connections": {"answer": {"connection": "other"}}},
)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda each: next(iter(each)))
def test_other_settings_are_another_job(on_cluster, settings):
    assert on_cluster().digest == on_cluster().digest
    assert on_cluster().digest != on_cluster(**settings).digest


@pytest.mark.parametrize("name", ["data.jsonl", "qa/flow.dag.yaml"])
def test_other_content_is_another_job(on_cluster, files, name):
    before = on_cluster().digest
    text = (files / name).read_text()
    (files / name).write_text(text.replace("question", "answer"))
    assert on_cluster().digest != before


def test_the_image_has_the_tools_and_the_requirements_of_the_flow(on_cluster, files):
    copy_flow(paths.FLOWS / "eval", files / "eval")
    columns = {"answer": "${data.answer}", "ground_truth": "${data.question}"}
    context = on_cluster(flow="eval", columns=columns, title="eval")._context()
    requirements = context["requirements.txt"].decode().splitlines()
    own = (paths.AZURE / "batch" / REQUIREMENTS).read_text().splitlines()
    assert set(own) < set(requirements)
    assert [each for each in requirements if each.startswith("sacrebleu")]
    assert requirements[0].removeprefix("/phi3/").removesuffix("[flow]") in context
    assert "promptflow" not in requirements[0].removeprefix("/phi3/phi3_promptflow")
    assert b"FROM mcr.microsoft.com/" in context["Dockerfile"]


@pytest.mark.parametrize(("size", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (10, [3])])
def test_a_file_per_mini_batch(on_cluster, files, tmp_path, size, sizes):
    rows = [{"question": word} for word in ("one", "two", "three")]
    (files / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    on_cluster(mini_batch_size=size)._write_mini_batches(tmp_path / "lines")
    written = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted((tmp_path / "lines").iterdir())
    ]
    assert [len(lines) for lines in written] == sizes
    assert [line for lines in written for line in lines] == [
        {"line_number": n, "inputs": {"input_data": row["question"]}} for n, row in enumerate(rows)
    ]


def test_a_requirements_file_that_does_not_exist_is_named(files):
    assert _flow_requirements(files / "qa") == []
    dag = files / "qa" / "flow.dag.yaml"
    dag.write_text(dag.read_text() + "\nenvironment: {python_requirements_txt: needs.txt}\n")
    with pytest.raises(OpsError, match="cannot read .*needs.txt: No such file.*flow.dag.yaml"):
        _flow_requirements(files / "qa")
    (files / "qa" / "needs.txt").write_text("one\ntwo\n")
    assert _flow_requirements(files / "qa") == ["one", "two"]


def test_the_code_is_the_entry_script_and_the_flow(on_cluster, files):
    (files / "qa" / ".env").write_text("KEY=x")
    on_cluster()._write_code(files / "code")
    names = {file.relative_to(files / "code").as_posix() for file in (files / "code").rglob("*")}
    assert {ENTRY_SCRIPT, "flow/flow.dag.yaml"} <= names
    assert "flow/.env" not in names and not [name for name in names if "__pycache__" in name]


def test_the_uploaded_flow_has_the_connections_of_the_command(on_cluster, files):
    on_cluster(connections={"answer": {"connection": "other"}})._write_code(files / "code")
    dag = yaml.safe_load((files / "code" / "flow" / "flow.dag.yaml").read_text())
    assert [node["inputs"]["connection"] for node in dag["nodes"]] == ["other"]
    assert "other" not in (files / "qa" / "flow.dag.yaml").read_text()


@pytest.mark.finding(
    6,
    "a batch on a cluster uploads a flow that contains a key",
    "the upload is refused, and the message names the file",
)
def test_a_key_in_the_flow_is_not_uploaded(on_cluster, files, monkeypatch):
    monkeypatch.setenv("PHI3_ENDPOINT_KEY", "a-key-of-the-environment")
    (files / "qa" / "notes.txt").write_text("a-key-of-the-environment")
    with pytest.raises(OpsError, match="notes.txt contains the value of PHI3_ENDPOINT_KEY"):
        on_cluster()._write_code(files / "code")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "notes.txt",
            "a-key-of-the-environment",
            "notes.txt contains the value of PHI3_ENDPOINT_KEY",
        ),
        ("flow.dag.yaml", "additional_includes: [../x]", "does not support `additional_includes`"),
    ],
)
def test_the_flow_is_checked_before_anything_is_created(
    on_cluster, files, monkeypatch, name, text, message
):
    monkeypatch.setenv("PHI3_ENDPOINT_KEY", "a-key-of-the-environment")
    submission = on_cluster()
    for check in ("_check_compute", "check_connections"):
        monkeypatch.setattr(submission, check, lambda: None)
    file = files / "qa" / name
    before = file.read_text() if file.exists() else ""
    file.write_text(f"{before}\n{text}\n")
    with pytest.raises(OpsError, match=message):
        submission.plan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("phi3_tools.pf_tools.phi3_chat", "x"), None),
        (("type: package", "type: none"), "qa cannot run: node 'answer'"),
        (("inputs:", "additional_includes: [../x]\ninputs:"), "additional_includes"),
    ],
)
def test_a_flow_that_a_node_cannot_run_is_refused(on_cluster, files, change, message):
    dag = files / "qa" / "flow.dag.yaml"
    submission = on_cluster()
    dag.write_text(dag.read_text().replace(*change, 1))
    if message is None:  # the tools are loaded on the nodes, which have the flow's requirements
        submission._write_code(files / "code")
        return
    with pytest.raises(OpsError, match=message):
        submission._write_code(files / "code")
