"""What is reviewed: runs of the store and files, their lines, and the evaluations of judges."""

from __future__ import annotations

import json

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.review.store import review_file
from phi3_ops.review.subjects import ReviewedData, load_runs
from phi3_ops.runs.batch import run_flow

ASKED = """
inputs: {question: {type: string}}
outputs: {answer: {type: string, reference: "${answer.output}"}}
nodes:
- name: answer
  type: python
  source: {type: code, path: answer.py}
  inputs: {question: "${inputs.question}"}
"""
JUDGE = """
display_name: judge
tags: {version: 1.0.0}
inputs: {answer: {type: string}, answer_b: {type: string, default: "two"}}
outputs:
  fluency: {type: double, reference: "${judge.output.fluency}"}
  winner: {type: string, reference: "${judge.output.winner}"}
nodes:
- name: judge
  type: python
  source: {type: code, path: judge.py}
  inputs: {answer: "${inputs.answer}"}
"""
ANSWER = """
from phi3_tools.flow import tool
@tool
def answer(question: str) -> str:
    if question == "fail":
        raise ValueError("told to fail")
    return question.upper()
"""
JUDGE_CODE = """
from phi3_tools.flow import tool
@tool
def judge(answer: str) -> dict:
    return {"fluency": 4.5, "winner": "answer"}
"""


def flow(folder, dag, name, code):
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(dag)
    (folder / name).write_text(code)
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of the store with two evaluations: its batch, and the data file."""
    folder = tmp_path_factory.mktemp("review")
    data = folder / "data.jsonl"
    rows = [{"question": question, "ground_truth": "ONE"} for question in ("one", "fail", "two")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": "${data.question}"}
    asking = flow(folder / "asked", ASKED, "answer.py", ANSWER)
    asked = run_flow(asking, data, columns, title="review-asked")
    judge = flow(folder / "judge", JUDGE, "judge.py", JUDGE_CODE)
    for number in range(2):
        columns = {"answer": "${run.outputs.answer}"}
        run_flow(judge, data, columns, title=f"review-judged-{number}", base=asked)
    return asked, data


def test_a_stored_run_has_its_answers_and_all_evaluations(stored):
    asked, data = stored
    (run,), lines = load_runs([asked.name])
    assert run.location.name == asked.name
    assert run.answers == {0: "ONE", 2: "TWO"}
    assert "told to fail" in run.errors[1]
    assert [judge.label for judge in run.judges] == ["judge 1.0.0", "judge 1.0.0"]
    assert run.judges[0].scores == {"fluency": {0: 4.5, 2: 4.5}}
    assert run.judges[0].verdicts[0].winner == "answer"
    assert (run.judges[0].verdicts[0].answer, run.judges[0].verdicts[0].answer_b) == ("ONE", "two")
    assert run.scores[0] == {"judge 1.0.0: fluency": 4.5}
    assert (lines.question(0), lines.reference(0), lines.context(0)) == ("one", "ONE", None)
    assert review_file(run.location) == find_stored_run(asked.name).folder / "review.jsonl"


def test_scores_of_the_run_itself_do_not_say_which_run_it_is(tmp_path):
    milliseconds = '{ms: {type: double, reference: "${answer.output.ms}"}, answer:'
    code = ANSWER.replace("-> str", "-> dict").replace("question.upper()", '{"ms": 3}')
    dag = ASKED.replace("{answer:", milliseconds)
    timed = flow(tmp_path / "timed", dag, "answer.py", code)
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "one"}\n')
    made = run_flow(timed, data, {"question": "${data.question}"}, title="review-timed")
    (run,), _ = load_runs([made.name])
    assert run.scores == {0: {"ms": 3.0}}


def test_an_evaluation_stands_for_the_run_that_it_scored(stored):
    asked, _ = stored
    (run,), _ = load_runs(["review-judged-1"])
    assert run.location.name == asked.name


def test_a_judge_can_be_named(stored):
    asked, _ = stored
    name = load_runs([asked.name])[0][0].judges[0].name
    (run,), _ = load_runs([asked.name], None, [name])
    assert [judge.name for judge in run.judges] == [name]
    (by_title,), _ = load_runs([asked.name], None, ["review-judged-0"])
    assert by_title.judges == run.judges
    with pytest.raises(OpsError, match="nobody is not a completed evaluation"):
        load_runs([asked.name], None, ["nobody"])


def test_the_same_run_twice_is_refused(stored):
    asked, _ = stored
    with pytest.raises(OpsError, match="review-judged-1 is given twice"):
        load_runs([asked.name, "review-judged-1"])


def test_runs_over_other_data_are_refused(files, stored):
    asked, _ = stored
    with pytest.raises(OpsError, match="given twice"):
        load_runs(["base.jsonl", "./base.jsonl"], files / "data.jsonl")
    with pytest.raises(OpsError, match="at most 4"):
        load_runs(["base.jsonl"] * 5, files / "data.jsonl")


def test_a_missing_run_is_an_error(files):
    with pytest.raises(OpsError, match="gone.jsonl does not exist"):
        load_runs(["gone.jsonl"], files / "data.jsonl")


@pytest.mark.parametrize(
    "row, question, reference",
    [
        ({"input_data": "What?", "expected": "That."}, "What?", "That."),
        ({"question": "", "prompt": "What?", "reference": {"a": 1}}, "What?", '{"a": 1}'),
        ({"query": "What?", "ground_truth": "That."}, "What?", "That."),
        ({"topic": "x", "number": 3}, "", None),
    ],
)
def test_columns_of_other_names_are_found(row, question, reference):
    data = ReviewedData([row])
    assert (data.question(0), data.reference(0)) == (question, reference)
    assert data.displayed_question(0) == (question or '{"topic": "x", "number": 3}')
