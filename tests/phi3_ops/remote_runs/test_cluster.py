"""Jobs on a cluster: the hash of their content, and the files of their environment."""

from __future__ import annotations

import json

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.remote_runs.cluster import PARALLEL, RESERVED, _copy_with_tools, _requirements

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
    assert PARALLEL in requirements
    assert [each for each in requirements if each.startswith("sacrebleu")]
    assert requirements[0].removeprefix("/phi3/").removesuffix("[promptflow]") in context
    assert b"FROM" in context["Dockerfile"]


@pytest.mark.parametrize("name", RESERVED)
def test_an_input_with_the_name_of_a_port_is_refused(on_cluster, name):
    with pytest.raises(OpsError, match=f"the input '{name}' has a reserved name"):
        on_cluster(columns={name: "${data.question}"})


def test_a_requirements_file_that_does_not_exist_is_named(files):
    assert _requirements(files / "qa") == []
    dag = files / "qa" / "flow.dag.yaml"
    dag.write_text(dag.read_text() + "\nenvironment: {python_requirements_txt: needs.txt}\n")
    with pytest.raises(OpsError, match="cannot read .*needs.txt: No such file.*flow.dag.yaml"):
        _requirements(files / "qa")
    (files / "qa" / "needs.txt").write_text("one\ntwo\n")
    assert _requirements(files / "qa") == ["one", "two"]


def test_the_copy_of_the_flow_lists_its_tools(files):
    copy = _copy_with_tools(files / "qa", files / "copy")
    tools = json.loads((copy / ".promptflow" / "flow.tools.json").read_text())
    assert [name for name in tools["package"] if name.startswith("phi3_tools.pf_tools.")]
    assert not (files / "qa" / ".promptflow").exists()


@pytest.mark.finding(
    6,
    "a batch on a cluster uploads a flow that contains a key",
    "the upload is refused, and the message names the file",
)
def test_a_key_in_the_flow_is_not_uploaded(files, monkeypatch):
    monkeypatch.setenv("PHI3_ENDPOINT_KEY", "a-key-of-the-environment")
    (files / "qa" / "notes.txt").write_text("a-key-of-the-environment")
    with pytest.raises(OpsError, match="notes.txt contains the value of PHI3_ENDPOINT_KEY"):
        _copy_with_tools(files / "qa", files / "copy")


def test_a_flow_that_is_not_valid_is_refused(files):
    (files / "qa" / "flow.dag.yaml").write_text("nodes: 3\n")
    with pytest.raises(OpsError, match="qa is not a valid flow: .*pf flow validate"):
        _copy_with_tools(files / "qa", files / "copy")
