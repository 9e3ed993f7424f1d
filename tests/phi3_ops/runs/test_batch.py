"""Batches on promptflow's own engine: every line counted, whatever became of it."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import cli, paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.flows.lock import flow_states
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.runs.batch import ask_and_score, find_run, mean_by_kind, resume_run, run_flow
from phi3_ops.runs.properties import (
    ENDPOINTS_PROPERTY,
    FLOW_HASH_PROPERTY,
    FLOW_VERSION_PROPERTY,
    readable_properties,
    run_properties,
)


@pytest.fixture
def server():
    with echo_endpoint() as server:
        save_connection("b", {"endpoint": server.url, "contract": "chat"}, KEY)
        yield server
        delete_connection("b")


def write(path, questions):
    rows = [{"question": q, "ground_truth": "right", "kind": "odd" if n % 2 else "even"}
            for n, q in enumerate(questions)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_failed_line_is_a_line_and_counts_nothing_right(server, tmp_path):
    rows = write(tmp_path / "q.jsonl", ["right", "fail", "wrong", "right"])
    asked, scored = ask_and_score(tmp_path / "q.jsonl", title="t", connection="b")
    assert (asked.lines, asked.failed) == (4, 1)
    assert "told to fail" in asked.reason
    assert [scored.answers.get(n, {}).get("exact_match") for n in range(4)] == [1, None, 0, 1]
    means = mean_by_kind(rows, scored)
    assert (means["even"].n, means["even"].mean) == (2, 0.5)
    assert (means["odd"].n, means["odd"].mean) == (2, 0.5)


def test_metrics_are_in_prompt_flows_own_store(server, tmp_path):
    write(tmp_path / "q.jsonl", ["right", "wrong"])
    _, scored = ask_and_score(tmp_path / "q.jsonl", title="t", connection="b")
    from phi3_ops.pf.client import pf_client

    metrics = pf_client().get_metrics(scored.name)
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 2 and metrics["failures"] == 0


def test_when_no_line_is_answered_the_reason_is_told(server, tmp_path):
    write(tmp_path / "q.jsonl", ["fail"])
    with pytest.raises(OpsError, match="all 1 lines of t-.* failed: .*told to fail"):
        ask_and_score(tmp_path / "q.jsonl", title="t", connection="b")


def test_a_connection_that_is_not_there_is_named(tmp_path):
    write(tmp_path / "q.jsonl", ["x"])
    with pytest.raises(OpsError, match="nowhere"):
        ask_and_score(tmp_path / "q.jsonl", title="t", connection="nowhere")


def test_lines_are_asked_at_once(server, tmp_path):
    write(tmp_path / "q.jsonl", [f"q{n}" for n in range(40)])
    columns = {"input_data": "${data.question}"}
    done = run_flow(
        paths.FLOWS / "qa", tmp_path / "q.jsonl", columns, title="t",
        connections={"answer": {"connection": "b"}},
    )  # fmt: skip
    assert [done.answers[n]["answer"] for n in range(40)] == [f"q{n}" for n in range(40)]
    assert len(server.requests) == 40


# -- what a run remembers --------------------------------------------------------------------------


def copy_of_qa(folder, version):
    flow = copy_flow(paths.FLOWS / "qa", folder)
    yaml = flow / "flow.dag.yaml"
    text = yaml.read_text(encoding="utf-8")
    yaml.write_text(re.sub(r"version: .*", f"version: {version}", text), encoding="utf-8")
    return flow


def ask(flow, data, connection=None):
    given = {"answer": {"connection": connection}} if connection else None
    columns = {"input_data": "${data.question}"}
    return run_flow(flow, data, columns, title="t", connections=given)


def test_a_run_remembers_its_flow_and_the_endpoints_behind_it(server, tmp_path):
    write(tmp_path / "q.jsonl", ["right"])
    secret = "key-in-the-url"
    fields = {"endpoint": f"{server.url}?code={secret}", "model": "phi", "deployment": "blue"}
    save_connection("other", fields, KEY)
    try:
        done = ask(paths.FLOWS / "qa", tmp_path / "q.jsonl", "other")
    finally:
        delete_connection("other")
    found = find_run(done.name).properties
    (state,) = [state for state in flow_states() if state.name == "qa"]
    assert found[FLOW_VERSION_PROPERTY] == state.version
    assert found[FLOW_HASH_PROPERTY] == state.sha256
    assert json.loads(found[ENDPOINTS_PROPERTY]) == {
        "answer": {
            "connection": "other",
            "endpoint": server.url.removeprefix("http://"),
            "contract": "auto",
            "model": "phi",
            "deployment": "blue",
        }
    }
    assert KEY not in str(found) and secret not in str(found)


@pytest.mark.parametrize("name", [path.parent.name for path in paths.FLOWS.glob("*/.gitignore")])
def test_another_runs_logs_stay_out_of_the_copy(server, tmp_path, name):
    """Prompt flow copies what .gitignore does not name, and fails by a log that goes meanwhile."""
    write(tmp_path / "q.jsonl", ["right"])
    flow = copy_of_qa(tmp_path / "qa", "1.0.0")
    shutil.copy(paths.FLOWS / name / ".gitignore", flow)
    (flow / "process_log").mkdir()
    (flow / "process_log" / "manager.log").write_text("x")
    done = ask(flow, tmp_path / "q.jsonl", "b")
    assert not (find_run(done.name)._output_path / "snapshot" / "process_log").exists()


def test_no_run_fails_by_what_cannot_be_remembered(tmp_path):
    flow = copy_of_qa(tmp_path / "qa", "1.0")  # no semantic version, and no such connection
    assert json.loads(run_properties(flow)[ENDPOINTS_PROPERTY]) == {
        "answer": {"connection": "phi3"}
    }
    (flow / "flow.dag.yaml").write_text("nodes: 3")
    assert list(run_properties(flow)) == [FLOW_HASH_PROPERTY]
    assert run_properties(tmp_path / "none") == {}
    assert readable_properties({ENDPOINTS_PROPERTY: "{"}) == {}


def test_a_flow_that_changed_is_not_resumed(server, tmp_path):
    write(tmp_path / "q.jsonl", ["right", "fail"])
    flow = copy_of_qa(tmp_path / "qa", "1.0.0")
    done = ask(flow, tmp_path / "q.jsonl", "b")
    shutil.rmtree(flow)
    copy_of_qa(flow, "1.0.1")
    with pytest.raises(OpsError, match=f"qa has changed since {done.name} ran it"):
        resume_run(done.name)
    shutil.rmtree(flow)
    copy_of_qa(flow, "1.0.0")
    again = find_run(resume_run(done.name).name).properties
    assert again[FLOW_VERSION_PROPERTY] == "1.0.0"


def test_compare_says_first_what_differs_between_the_runs(server, tmp_path, capsys):
    data = tmp_path / "q.jsonl"
    write(data, ["right", "wrong"])
    fields = {"endpoint": server.url, "contract": "chat", "deployment": "green"}
    save_connection("green", fields, KEY)
    names = []
    try:
        for version, connection in (("1.0.0", "b"), ("1.1.0", "green")):
            asked = ask(copy_of_qa(tmp_path / version, version), data, connection)
            columns = {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"}
            run_flow(paths.FLOWS / "eval", data, columns, title="e", base=asked)
            names.append(asked.name)
    finally:
        delete_connection("green")
    capsys.readouterr()
    assert cli.main(["compare", *names, "--out", str(tmp_path / "out")]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    differing = said[3 : said.index("Scores")]
    assert "flow version: 1.0.0 | 1.1.0" in differing
    assert "answer.connection: b | green" in differing
    assert "answer.connection.deployment: – | green" in differing
    assert any(line.startswith("flow content: ") for line in differing)
    assert len(differing) == 4  # and nothing of what is the same
