"""The folder of a run: what is written is read again, by us and by Prompt flow."""

from __future__ import annotations

import json
import shutil

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.runs.store import (
    OUTPUT_FOLDER,
    SNAPSHOT,
    complete_run_folder,
    find_outputs_file,
    find_thresholds,
    read_answers,
    read_errors,
    read_rows_by_line,
    read_run_folder,
    write_run_folder,
)

EVAL = paths.FLOWS / "eval"
INPUTS = {line: {"answer": text} for line, text in enumerate("abc")}
ANSWERS = {0: {"exact_match": 1.0}, 2: {"exact_match": 0.0}}
ERRORS = {1: "no answer"}


@pytest.fixture
def folder(tmp_path):
    write_run_folder(tmp_path / "run", EVAL, inputs=INPUTS, answers=ANSWERS, errors=ERRORS)
    return tmp_path / "run"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_is_written_and_read(folder):
    outputs = read_run_folder(folder)
    assert (outputs.rows, outputs.inputs, outputs.errors) == (ANSWERS, INPUTS, ERRORS)
    assert outputs.metrics == {}
    assert outputs.facts["flow"] == "phi3-eval"
    assert read_answers(folder) == ANSWERS and read_errors(folder) == ERRORS
    assert find_outputs_file(folder) == folder / OUTPUT_FOLDER / "output.jsonl"
    rows_for_pf = (folder / "outputs.jsonl").read_text()
    assert rows_for_pf == (folder / OUTPUT_FOLDER / "output.jsonl").read_text()
    assert find_thresholds(folder, folder / SNAPSHOT) == folder / SNAPSHOT / "thresholds.yaml"


def test_other_files_are_copied_and_ours_win(tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    write(others / "outputs.jsonl", [{"line_number": 0, "old": True}])
    (others / "metrics.json").write_text('{"exact_match": 0.5}')
    folder = tmp_path / "run"
    write_run_folder(folder, EVAL, inputs=INPUTS, answers=ANSWERS, errors={}, other_files=others)
    assert read_run_folder(folder).metrics == {"exact_match": 0.5}
    assert "old" not in (folder / "outputs.jsonl").read_text()
    assert not (folder / "error.json").exists()


def test_nothing_is_written_on_an_error(tmp_path):
    with pytest.raises(TypeError):
        write_run_folder(
            tmp_path / "run", EVAL, inputs=INPUTS, answers={0: {"x": object()}}, errors={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_lines_all_failed_has_no_rows(folder):
    shutil.rmtree(folder / OUTPUT_FOLDER)
    (folder / "outputs.jsonl").unlink()
    assert find_outputs_file(folder) is None
    assert read_run_folder(folder).rows == {}
    assert read_answers(folder) == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"additionalInfo": []}', '{"additionalInfo": 3}']
)
def test_a_report_that_is_not_valid_has_no_errors(folder, text):
    (folder / "error.json").write_text(text)
    assert read_errors(folder) == {}


def test_a_flow_that_is_not_a_dag_has_no_facts(folder):
    for text in ("nodes: 3", "{", "- 1"):
        (folder / SNAPSHOT / "flow.dag.yaml").write_text(text)
        assert read_run_folder(folder).facts == {}
    shutil.rmtree(folder / SNAPSHOT)
    assert read_run_folder(folder).facts == {}


def test_logs_of_prompt_flow_are_not_part_of_a_flow(folder):
    """Its process pool writes them next to the flow, and its copy of the flow may contain them."""
    before = read_run_folder(folder).facts
    for name in ("process_log/manager.log", "__pycache__/x.pyc", ".promptflow/log.txt"):
        (folder / SNAPSHOT / name).parent.mkdir(exist_ok=True)
        (folder / SNAPSHOT / name).write_text("x")
    assert read_run_folder(folder).facts == before
    (folder / SNAPSHOT / "more.py").write_text("x")
    changed = read_run_folder(folder).facts
    assert {name for name in before if before[name] != changed[name]} == {"flow files"}


def test_the_folder_of_a_killed_run_is_completed(tmp_path):
    records = tmp_path / "flow_artifacts"
    records.mkdir()
    (records / "0.jsonl").write_text('{"line_number": 0}')
    (records / "1.jsonl").write_text('{"line_num')
    (tmp_path / "inputs.jsonl").write_text('{"line_number": 0}\n')
    complete_run_folder(tmp_path)
    assert [file.name for file in records.iterdir()] == ["0.jsonl"]
    assert (tmp_path / "inputs.jsonl").read_text() == '{"line_number": 0}\n'
    for name in ("outputs.jsonl", f"{OUTPUT_FOLDER}/output.jsonl"):
        assert (tmp_path / name).read_text() == ""


# -- rows by line ----------------------------------------------------------------------------------


def test_rows_are_found_by_their_line_number(tmp_path):
    file = write(tmp_path / "r.jsonl", [{"line_number": 2, "s": 1}, {"line_number": 0, "s": 0}])
    assert read_rows_by_line(file) == read_rows_by_line(file, 3) == {2: {"s": 1}, 0: {"s": 0}}


def test_rows_without_numbers_are_all_lines_in_order(tmp_path):
    file = write(tmp_path / "r.jsonl", [{"s": 1}, {"s": 2}])
    assert read_rows_by_line(file, 2) == {0: {"s": 1}, 1: {"s": 2}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"s": 1}], "r.jsonl has 1 rows, but the data file has 3 lines"),
        ([{"line_number": -1}], "row 1: `line_number` is -1"),
        ([{"line_number": True}], "row 1: `line_number` is True"),
        ([{"line_number": 1}, {"line_number": "1"}], "row 2: `line_number` is '1'"),
        ([{"line_number": 1}, {"s": 1}], "row 2: `line_number` is None"),
        ([{"line_number": 1}, {"line_number": 1}], "row 2: line 1 appears twice"),
    ],
)
def test_rows_that_cannot_be_assigned_to_lines(tmp_path, rows, message):
    with pytest.raises(OpsError, match=message):
        read_rows_by_line(write(tmp_path / "r.jsonl", rows), 3)
