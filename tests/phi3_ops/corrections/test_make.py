"""From the store, the reviews and the runs to files for fine-tuning, by the command."""

import json

import pytest

from chats import chat_row, write_rows
from correction_records import feedback
from documented_commands import documented
from phi3_ops.cli import main
from phi3_ops.corrections.make import CorrectionSources, make_correction_data
from phi3_ops.data.prepare import prepare_data
from phi3_ops.errors import OpsError
from phi3_ops.feedback.store import FeedbackStore
from phi3_ops.files.json_files import read_jsonl

TESTED = "Where is the head office?"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a store, a run, its data and a test file; the current one."""
    monkeypatch.chdir(tmp_path)
    store = FeedbackStore(tmp_path / "store" / "feedback.sqlite")
    store.create()
    for record in (
        feedback("edit", "Who founded it?", "Bob.", edited="Ann."),
        feedback("edit", TESTED, "In Rome.", edited="In Bonn."),
        feedback("thumbs_up", "When was it?", "In 1999."),
        feedback("thumbs_down", "Why?", "No."),
        feedback("choice", "How?", "Well.", chosen="Well.", rejected="Badly."),
        feedback("comment", "How?", "Well.", comment="<b>nice</b>"),
    ):
        store.add(record)
    write_rows(tmp_path / "test.jsonl", [chat_row(TESTED, "In Bonn.")])
    rows = [{"question": TESTED, "ground_truth": "In Bonn."}, {"question": "2 + 2?"}]
    rows.append({"question": "What is 1 + 1?", "ground_truth": "2"})
    write_rows(tmp_path / "questions.jsonl", rows)
    answers = [{"line_number": n, "answer": text} for n, text in enumerate(("In Rome.", "5", "3"))]
    write_rows(tmp_path / "run.jsonl", answers)
    return tmp_path


COMMAND = ["data", "--feedback", "store/feedback.sqlite", "--run", "run.jsonl"]
COMMAND += ["--run-data", "questions.jsonl", "--test", "test.jsonl", "--out", "out"]


def test_rows_and_preferences_are_written_with_all_counts(folder, capsys):
    assert main([*COMMAND, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest == json.loads((folder / "out/manifest.json").read_text("utf-8"))
    assert manifest["sources"] == [
        {
            **{"source": "feedback", "name": "feedback.sqlite", "records": 6, "used": 4},
            "unused": {"thumb down": 1, "comment": 1},
        },
        {
            **{"source": "run", "name": "run.jsonl", "records": 3, "used": 2},
            "unused": {"no reference": 1},
        },
    ]
    leak = {"question of the test data": 1}
    assert manifest["rows"] == {"examples": 3, "taken": 2, "excluded": leak}
    leak = {"question of the test data": 2}
    assert manifest["pairs"] == {"examples": 5, "taken": 3, "excluded": leak}
    rows, pairs = (read_jsonl(folder / "out" / name) for name in ("train.jsonl", "pairs.jsonl"))
    assert [row["messages"][-1]["content"] for row in rows] == ["In 1999.", "Ann."]
    assert {(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in pairs} == {
        ("Who founded it?", "Ann.", "Bob."),
        ("How?", "Well.", "Badly."),
        ("What is 1 + 1?", "2", "3"),
    }
    excluded = read_jsonl(folder / "out/excluded.jsonl")
    assert {entry["detail"] for entry in excluded} == {TESTED}
    assert TESTED not in (folder / "out/train.jsonl").read_text("utf-8")


@documented(
    "phi3 data --feedback --test .phi3/data/test.jsonl",
    "phi3 data --run RUN --test .phi3/data/test.jsonl",
)
def test_a_table_shows_that_the_numbers_add_up(folder, capsys):
    assert main(COMMAND) == 0
    output = capsys.readouterr().out
    assert output.startswith("2 rows and 3 preferences, in out\n")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in (
        *("feedback feedback.sqlite: records 6", "- thumb down 1", "used 4"),
        *("examples for rows 3", "- question of the test data 1", "taken 2"),
        "compared with 1 test question",
    ):
        assert line in lines
    train = "--train-file out/train.jsonl --eval-file test.jsonl"
    assert lines[-1] == f"next: phi3 finetune --local --model smollm2 {train}"


def test_a_test_file_without_chats_is_not_suggested_for_the_evaluation(folder, capsys):
    write_rows(folder / "test.jsonl", [{"question": TESTED, "ground_truth": "In Bonn."}])
    assert main(COMMAND) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("test.jsonl has questions without chats, so it cannot measure the loss")


def test_what_was_written_is_what_phi3_data_reads(folder):
    assert main(COMMAND) == 0
    for name, count in (("train.jsonl", 2), ("pairs.jsonl", 3)):
        manifest = prepare_data(folder / "out" / name, folder / "split", seed=1)
        assert (manifest.rows.read, manifest.rows.rejected) == (count, 0)


def test_the_test_questions_must_be_known(folder, capsys):
    words = [word for word in COMMAND if word not in ("--test", "test.jsonl")]
    assert main(words) == 1
    assert "the test questions are not known" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--feedback", "gone.sqlite", "--test", "test.jsonl"],
            "the feedback store gone.sqlite does not exist. Collect feedback with phi3 serve",
        ),
        (["--feedback", "--strict", "--test", "test.jsonl"], "--strict has no effect"),
        (["--feedback", "--against", "x", "--test", "test.jsonl"], "--against has no effect"),
        (["--test", "test.jsonl"], "--test has no effect"),
        (["--run", "gone", "--test", "test.jsonl"], "the run 'gone' does not exist"),
    ],
)
def test_wrong_options_are_one_line(folder, words, message, capsys):
    assert main(["data", *words]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_nothing_is_written_if_nothing_is_left(folder):
    store = FeedbackStore(folder / "empty.sqlite")
    store.create()
    sources = CorrectionSources(feedback=store.file)
    with pytest.raises(OpsError, match="from 0 records: no records"):
        make_correction_data(sources, [folder / "test.jsonl"], folder / "out")
    store.add(feedback("edit", TESTED, "In Rome.", edited="In Bonn."))
    with pytest.raises(OpsError, match=r"from 1 records: question of the test data \(2\)"):
        make_correction_data(sources, [folder / "test.jsonl"], folder / "out")
    assert not (folder / "out").exists()


def test_a_file_of_others_is_not_replaced(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out/train.jsonl").write_text("mine\n")
    assert main(COMMAND) == 1
    assert "train.jsonl exists, and phi3 did not write it" in capsys.readouterr().err
    assert (folder / "out/train.jsonl").read_text() == "mine\n"
