"""Batches on this project's engine: the same runs as on Prompt flow's own, in the same store."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from flow_folders import ECHO_TOOL, write_echo_flow
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.files import write_jsonl
from phi3_ops.pf import store_database
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.run_types import PHI3, PROMPTFLOW
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.runs import engine_run
from phi3_ops.runs.batch import load_batch, run_flow
from phi3_ops.runs.details import delete_run, list_runs, run_details
from phi3_ops.runs.resume import resume_run
from phi3_ops.runs.store import read_run_folder
from slow_endpoint import slow_endpoint

EVAL_COLUMNS = {"answer": "${data.answer}", "ground_truth": "${data.ground_truth}"}
TEXT = {"text": "${data.text}"}


@pytest.fixture
def echo(tmp_path):
    return write_echo_flow(tmp_path / "echo")


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.jsonl"
    write_jsonl(file, [{"text": text} for text in ("a", "fail", "ü\u2028", "b")])
    return file


@pytest.fixture
def without_promptflow(monkeypatch, tmp_path):
    monkeypatch.setattr(store_database, "installed_version", lambda package: "")
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "phi3"))


def results(flow, data, columns, engine):
    batch = run_flow(flow, data, columns, title=f"engine-{engine}", engine=engine)
    return batch, find_stored_run(batch.name)


def test_both_engines_write_the_same_results(tmp_path):
    data = tmp_path / "answers.jsonl"
    rows = [{"answer": "Paris", "ground_truth": "Paris"}, {"answer": "x y", "ground_truth": "y"}]
    write_jsonl(data, [*rows, {"answer": "", "ground_truth": "z"}])
    outputs = {}
    for engine in (PHI3, PROMPTFLOW):
        _, run = results(paths.FLOWS / "eval", data, EVAL_COLUMNS, engine)
        outputs[engine] = read_run_folder(run.folder)
        names = {file.relative_to(run.folder).as_posix() for file in run.folder.rglob("*.json*")}
        outputs[f"{engine} files"] = {name for name in names if ".promptflow" not in name}
    assert outputs[PHI3] == outputs[PROMPTFLOW]
    assert outputs["phi3 files"] == outputs["promptflow files"]


def test_both_engines_report_the_same_failures(echo, texts):
    runs = [results(echo, texts, TEXT, engine)[1] for engine in (PHI3, PROMPTFLOW)]
    ours, theirs = (read_run_folder(run.folder) for run in runs)
    assert ours.rows == theirs.rows and ours.inputs == theirs.inputs
    assert list(ours.errors) == list(theirs.errors) == [1]
    assert "asked to fail" in ours.errors[1]
    counts = [{name: run.properties["system_metrics"][name] for name in METRICS} for run in runs]
    assert counts[0] == counts[1]


METRICS = ("__pf__.lines.completed", "__pf__.lines.failed")


def test_prompt_flow_shows_the_run(echo, texts):
    batch, _ = results(echo, texts, TEXT, PHI3)
    client = pf_client()
    assert client.runs.get(batch.name).status == "Completed"
    details = client.runs.get_details(batch.name)
    assert list(details["outputs.text"])[0] == "a" and len(details) == 4
    assert client.runs.get_metrics(batch.name) == {}


def test_prompt_flow_resumes_a_run_of_this_engine(echo, texts):
    batch, _ = results(echo, texts, TEXT, PHI3)
    done = resume_run(batch.name, engine=PROMPTFLOW)
    assert done.answers == batch.answers and done.failed == 1


@pytest.mark.parametrize("first", [PHI3, PROMPTFLOW])
def test_this_engine_resumes_a_run_of_either_engine(tmp_path, first):
    data = tmp_path / "questions.jsonl"
    write_jsonl(data, [{"question": "a"}, {"question": "fail"}, {"question": "b"}])
    with slow_endpoint(0.0) as server:
        save_connection("either", {"endpoint": server.url, "contract": "chat"}, "key")
        connections = {"answer": {"connection": "either"}}
        columns = {"input_data": "${data.question}"}
        batch = run_flow(
            paths.FLOWS / "qa", data, columns, title="r", connections=connections, engine=first
        )
        done = resume_run(batch.name)
        assert set(done.answers) == {0, 2} and done.answers == batch.answers
        assert server.asked["a"] == 1
    delete_connection("either")


def test_an_evaluation_is_resumed_with_the_metrics_of_all_lines(tmp_path):
    data = tmp_path / "answers.jsonl"
    write_jsonl(data, [{"answer": str(n), "ground_truth": "1"} for n in range(4)])
    batch, run = results(paths.FLOWS / "eval", data, EVAL_COLUMNS, PHI3)
    metrics = read_run_folder(run.folder).metrics
    file = run.folder / "flow_artifacts" / "000000002_000000002.jsonl"
    file.unlink()  # as if the process had been killed
    for name in ("outputs.jsonl", "flow_outputs/output.jsonl"):
        rows = (run.folder / name).read_text().splitlines()
        (run.folder / name).write_text("\n".join(rows[:2] + rows[3:]) + "\n")
    done = resume_run(batch.name)
    assert done.answers == batch.answers
    assert read_run_folder(find_stored_run(done.name).folder).metrics == metrics


def test_a_run_over_a_run_has_the_lines_that_the_base_answered(echo, texts):
    base, _ = results(echo, texts, TEXT, PHI3)
    columns = {"text": "${run.outputs.text}"}
    batch = run_flow(echo, texts, columns, title="over", base=base)
    assert batch.answers == base.answers and batch.not_asked == 0
    inputs = run_flow(echo, texts, {"text": "${run.inputs.text}"}, title="inputs", base=base)
    assert inputs.answers == base.answers and inputs.failed == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "${data.txt}"}, r"column 'txt' in \$\{data.txt\} does not exist.*are text"),
        ({"text": "${run.outputs.text}"}, "source 'run.outputs' .* does not exist"),
    ],
)
def test_a_wrong_mapping_is_named_before_anything_is_written(echo, texts, columns, message):
    before = {run.name for run in list_runs()}
    with pytest.raises(OpsError, match=message):
        run_flow(echo, texts, columns, title="wrong")
    assert {run.name for run in list_runs()} == before


def test_a_flow_that_cannot_run_is_one_line_that_names_the_node(tmp_path, texts):
    flow = write_echo_flow(tmp_path / "llm")
    dag = flow / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace("type: python", "type: custom_llm"))
    with pytest.raises(
        OpsError, match="cannot run: node 'echo', field `type`: nodes of type 'custom_llm'"
    ) as error:
        run_flow(flow, texts, TEXT, title="llm")
    assert "\n" not in str(error.value)


def test_constants_are_converted_to_the_inputs_type(tmp_path, texts):
    flow = write_echo_flow(tmp_path / "number", ECHO_TOOL.replace("text: str", "text: int"))
    dag = flow / "flow.dag.yaml"
    dag.write_text(dag.read_text().replace("type: string", "type: int"))
    batch = run_flow(flow, texts, {"text": "7"}, title="constant")
    assert [row["text"] for row in batch.answers.values()] == [7] * 4


def test_a_run_lands_in_the_store_of_an_untested_prompt_flow_too(
    echo, texts, monkeypatch, tmp_path
):
    monkeypatch.setattr(store_database, "installed_version", lambda package: "1.99.0")
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "phi3"))
    batch, run = results(echo, texts, TEXT, PHI3)
    assert run.folder == tmp_path / "phi3" / "runs" / batch.name
    client = pf_client()
    assert client.runs.get(batch.name).status == "Completed"
    assert len(client.runs.get_details(batch.name)) == 4
    over = run_flow(echo, texts, {"text": "${run.outputs.text}"}, title="over", base=batch)
    assert find_stored_run(over.name).base == batch.name
    assert [each.name for each in list_runs()].count(batch.name) == 1
    delete_run(batch.name)
    assert find_stored_run(batch.name) is None and not run.folder.exists()


# -- without Prompt flow -----------------------------------------------------------------------------


def test_without_promptflow_runs_are_in_our_own_store(echo, texts, without_promptflow, tmp_path):
    batch, run = results(echo, texts, TEXT, PHI3)
    assert run.folder.parent == tmp_path / "phi3" / "runs"
    assert [each.name for each in list_runs()] == [batch.name]
    details = run_details("engine-phi3")  # the display name
    assert details.run == run and details.counts == "3 answered, 1 failed"
    assert details.lines == [0, 1, 2, 3]
    assert load_batch(batch.name) == batch
    assert resume_run(batch.name).failed == 1
    delete_run(batch.name)
    assert not run.folder.exists() and len(list_runs()) == 1


def test_a_run_does_not_import_promptflow(tmp_path, echo, texts):
    flow = write_echo_flow(
        tmp_path / "own", ECHO_TOOL.replace("promptflow.core", "phi3_tools.flow")
    )
    code = f"""
import sys
from pathlib import Path
from phi3_ops.cli import main
main(["run", "--flow", {str(flow)!r}, "--data", {str(texts)!r}, "--max-failures", "1"])
main(["runs"])
print(sorted(name for name in sys.modules if name.partition(".")[0] == "promptflow"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "4 lines, 1 failed" in done.stdout


def test_records_name_connections_and_contain_no_secret(tmp_path):
    data = tmp_path / "questions.jsonl"
    write_jsonl(data, [{"question": "a"}])
    with slow_endpoint(0.0) as server:
        save_connection("named", {"endpoint": server.url, "contract": "chat"}, "a-secret-key")
        batch = run_flow(
            paths.FLOWS / "qa",
            data,
            {"input_data": "${data.question}"},
            title="records",
            connections={"answer": {"connection": "named"}},
        )
    delete_connection("named")
    folder = find_stored_run(batch.name).folder
    assert not any(b"a-secret-key" in file.read_bytes() for file in folder.rglob("*.*"))
    (record,) = (folder / "node_artifacts" / "answer").iterdir()
    info = json.loads(record.read_text())["run_info"]
    assert info["inputs"]["connection"] == "named" and info["output"] == "a"
    snapshot = (folder / "snapshot" / "flow.dag.yaml").read_text()
    assert '"connection": "named"' in snapshot


def test_a_batch_does_not_keep_the_runs_of_nodes(echo, texts, monkeypatch):
    kept = []
    finish = engine_run._finish

    def recording_finish(batch, *arguments):
        kept.extend(len(result.node_runs) for result in batch.results.values())
        return finish(batch, *arguments)

    monkeypatch.setattr(engine_run, "_finish", recording_finish)
    results(echo, texts, TEXT, PHI3)
    assert kept == [0, 0, 0, 0]
