"""Scored runs are loaded from Prompt flow's own store, and from files."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.files.json_files import read_jsonl
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.run_types import RUNNING
from phi3_ops.pf.stored_runs import find_stored_run, set_run_status
from phi3_ops.runs.evaluation import score_batch
from phi3_ops.runs.scored import load_scored_run
from phi3_tools.evaluation.metrics import line_scores
from processes import phi3

FLOW = """
tags: {version: 2.0.0}
inputs: {question: {type: string}}
outputs: {answer: {type: string, reference: "${answer.output}"}}
nodes:
- name: answer
  type: python
  source: {type: code, path: answer.py}
  inputs: {question: "${inputs.question}", model: MODEL}
"""
CODE = """
from promptflow.core import tool
@tool
def answer(question: str, model: str) -> str:
    if question.startswith(("fail", model)):
        raise ValueError("told to fail")
    return question
"""
ROWS = [
    {"question": question, "ground_truth": "right", "kind": kind}
    for question, kind in zip(("right", "wrong", "fail", "right", "tuned fails"), "xyxyy")
]
MAPPING = {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Store:
    """A data file, a flow with each of two models, and their scores: twice for the first model."""

    def __init__(self, folder):
        self.data = write(folder / "data.jsonl", ROWS)
        self.client = pf_client()
        for model in ("base", "tuned"):
            flow = folder / model
            flow.mkdir()
            (flow / "flow.dag.yaml").write_text(FLOW.replace("MODEL", model))
            (flow / "answer.py").write_text(CODE)
            mapping = {"question": "${data.question}"}
            self.run(model, flow=flow, column_mapping=mapping)
        for title in ("base-eval", "tuned-eval", "base-eval-again"):
            base = self.name(title.split("-")[0])
            self.run(title, flow=paths.FLOWS / "eval", run=base, column_mapping=MAPPING)

    def name(self, title):
        return f"runs-{title}-{os.getpid()}"

    def run(self, title, **options):
        self.client.run(name=self.name(title), data=self.data, batch_use_async=True, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_a_base_run_is_read_with_its_newest_evaluation(store):
    run = load_scored_run(store.name("base"))
    assert run.data == store.data
    assert {line: row["answer"] for line, row in run.answers.items()} == {
        0: "right",
        1: "wrong",
        3: "right",
        4: "tuned fails",
    }
    assert run.scored.rows[1] == pytest.approx(line_scores("wrong", "right"))
    assert set(run.scored.rows) == {0, 1, 3, 4}
    assert "told to fail" in run.errors[2]
    newest = store.name("base-eval-again")
    assert run.note.endswith(f"scored by {newest}, the newest of 2 evaluations")


def test_an_evaluation_leads_to_its_base(store):
    run = load_scored_run(store.name("tuned-eval"))
    assert set(run.answers) == {0, 1, 3}
    assert set(run.errors) == {2, 4}
    assert run.note == ""
    assert run.thresholds == paths.FLOWS / "eval" / "thresholds.yaml"


def test_a_display_name_stands_for_the_newest_run(server, ask, write_questions):
    data = write_questions("right", "fail")
    ask(paths.FLOWS / "qa", data)
    newest = ask(paths.FLOWS / "qa", data)
    run = load_scored_run("t")
    assert run.name == "t" and run.note == f"t is the newest run of that name, {newest.name}"


def test_lines_that_were_never_asked_are_named(server, ask, write_questions):
    data = write_questions("right", "fail", "wrong")
    done = ask(paths.FLOWS / "qa", data)
    scored = score_batch(FlowDefinition.read(paths.FLOWS / "eval"), done)
    folder = find_stored_run(done.name).folder
    rows = read_jsonl(folder / "flow_outputs" / "output.jsonl")
    write(folder / "flow_outputs" / "output.jsonl", rows[:1])
    note = load_scored_run(scored.name).note
    assert note == f"1 of the failed lines were never asked, see phi3 run --resume {done.name}"


def test_the_metrics_of_the_aggregation_are_read(store):
    metrics = load_scored_run(store.name("base")).scored.metrics
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 4


def test_facts_are_those_of_the_run_and_not_of_today(store):
    facts = load_scored_run(store.name("base")).facts
    assert facts["answer.model"] == "base"
    assert facts["flow version"] == "2.0.0"
    assert facts["scored by: flow"] == "phi3-eval"
    assert facts["scored by: flow version"] == FlowDefinition.read(paths.FLOWS / "eval").version
    other = load_scored_run(store.name("tuned")).facts
    assert facts["flow files"] == other["flow files"]
    assert other["answer.model"] == "tuned"


def test_data_that_has_changed_is_refused(store, tmp_path):
    before = store.data.read_text()
    write(store.data, [ROWS[1], *ROWS[1:]])
    try:
        with pytest.raises(OpsError, match="did not run over .* line 0 differs in `question`"):
            load_scored_run(store.name("base"))
        write(store.data, ROWS[:2])
        with pytest.raises(OpsError, match="did not run over|has 2 lines"):
            load_scored_run(store.name("base"))
        store.data.unlink()
        with pytest.raises(
            OpsError, match="data file of the run .* does not exist any more.*--data FILE"
        ):
            load_scored_run(store.name("base"))
        moved = tmp_path / "moved.jsonl"
        moved.write_text(before)
        assert load_scored_run(store.name("base"), moved).data == moved
    finally:
        store.data.write_text(before)


def test_a_run_that_does_not_exist_is_named(store):
    with pytest.raises(OpsError, match="the run 'nowhere' does not exist.*phi3 runs"):
        load_scored_run("nowhere")


def test_a_run_that_has_not_ended_is_refused(store):
    name = store.name("tuned")
    set_run_status(name, RUNNING)
    try:
        with pytest.raises(OpsError, match=f"the run {name} is Running"):
            load_scored_run(name)
    finally:
        set_run_status(name, "Completed")


def test_a_folder_from_elsewhere_is_loaded(store, tmp_path):
    run = find_stored_run(store.name("tuned-eval"))
    folder = shutil.copytree(run.folder, tmp_path / "fetched")
    loaded = load_scored_run(str(folder), store.data)
    assert loaded.scored.rows == load_scored_run(store.name("tuned-eval")).scored.rows
    assert loaded.answers[1]["answer"] == "wrong"  # the inputs of an evaluation contain the answers
    assert loaded.thresholds == folder / "snapshot" / "thresholds.yaml"
    with pytest.raises(OpsError, match="does not record its data file.*--data FILE"):
        load_scored_run(str(folder))


def test_two_runs_are_compared_by_their_names(store, tmp_path):
    """As in the documentation: two of Prompt flow's commands per run, then this one."""
    words = ("compare", store.name("base"), store.name("tuned"), "--out", tmp_path / "out")
    done = phi3(*words, "--metric", "exact_match", "--gate", "exact_match:0.02")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "1 of 5 lines of A and 2 of 5 lines of B failed; 5% is accepted" in done.stdout
    assert "answer.model: base | tuned" in done.stdout
    assert "tuned" in done.stdout and "3 answered, 2 failed" in done.stdout
    summary = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [run["failed"] for run in summary["runs"]] == [1, 2]
    (entry,) = summary["comparisons"]
    assert (entry["n"], entry["baseline_mean"], entry["mean"]) == (5, 0.4, 0.4)
    assert {part["value"]: part["n"] for part in entry["slices"]} == {"x": 2, "y": 3}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "tuned fails" in page and "told to fail" in page


# -- files -----------------------------------------------------------------------------------------


def load(tmp_path, rows, lines=3):
    data = write(tmp_path / "d.jsonl", [{"q": n} for n in range(lines)])
    return load_scored_run(str(write(tmp_path / "r.jsonl", rows)), data)


def test_rows_by_their_number(tmp_path):
    run = load(tmp_path, [{"line_number": 2, "s": 1}, {"line_number": 0, "s": 0}])
    assert run.scored.rows == {2: {"s": 1}, 0: {"s": 0}}
    assert run.asked is None and run.facts == {}


def test_rows_without_numbers_are_all_lines(tmp_path):
    assert load(tmp_path, [{"s": 1}, {"s": 2}, {"s": 3}]).scored.rows[2] == {"s": 3}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"s": 1}], "r.jsonl has 1 rows, but the data file has 3 lines"),
        ([{"line_number": 3}], "r.jsonl has line 3, but .*d.jsonl has 3 lines"),
        ([{"line_number": -1}], "row 1: `line_number` is -1"),
        ([{"line_number": 1}, {"line_number": "1"}], "row 2: `line_number` is '1'"),
        ([{"line_number": 1}, {"s": 1}], "row 2: `line_number` is None"),
        ([{"line_number": 1}, {"line_number": 1}], "row 2: line 1 appears twice"),
    ],
)
def test_rows_that_cannot_be_joined(tmp_path, rows, message):
    with pytest.raises(OpsError, match=message):
        load(tmp_path, rows)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(OpsError, match="0 rows"):
        load(tmp_path, [])
