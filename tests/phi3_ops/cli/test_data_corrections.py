"""`phi3 data --feedback`: options that are missing or have no effect, the store, and what is printed."""

from __future__ import annotations

import json

import pytest

from chats import chat_row, write_rows
from correction_records import feedback
from phi3_ops.cli import main
from phi3_ops.feedback.store import FeedbackStore, default_store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with test.jsonl, and the user's store with one correction."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    write_rows(tmp_path / "test.jsonl", [chat_row("Where is it?", "In Bonn.")])
    store = FeedbackStore(default_store())
    store.create()
    store.add(feedback("edit", "Who founded it?", "Bob.", edited="Ann."))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--feedback"], "the test questions are not known"),
        (
            ["--feedback", "--test", "test.jsonl", "--metric", "f1"],
            "--metric has no effect without",
        ),
        (["--feedback", "--test", "test.jsonl", "--run-data", "d"], "--run-data has no effect"),
        (["--feedback", "--test", "test.jsonl", "--source", "x"], "--source has no effect with"),
        (["--feedback", "--test", "test.jsonl", "--seed", "0"], "--seed has no effect with"),
        (["--from-docs", "d", "--test-share", "0"], "--test-share has no effect with --from-docs"),
        (["--feedback", ".", "--test", "test.jsonl"], "the feedback store . does not exist"),
    ],
)
def test_wrong_options_are_one_clear_line(folder, capsys, words, message):
    assert main(["data", *words]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / ".phi3").exists()


def test_the_store_of_the_user_is_the_default(folder, capsys):
    assert main(["data", "--feedback", "--test", "test.jsonl", "--out", "my data"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "1 row and 1 preference, in my data"
    assert {"feedback feedback.sqlite: records 1", "used 1", "taken 1"} <= set(lines)
    assert lines[-2] == "compared with 1 test question"
    assert "--train-file 'my data/train.jsonl' --eval-file test.jsonl" in lines[-1]


def test_json_is_the_manifest(folder, capsys):
    (folder / "other").mkdir()
    write_rows(folder / "other" / "test.jsonl", [chat_row("Why?", "So.")])
    tests = ["--test", "test.jsonl", "--test", "other/test.jsonl"]
    assert main(["data", "--feedback", *tests, "--out", "out", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert list(manifest["test"]["files"]) == ["test.jsonl", "other/test.jsonl"]
    assert manifest == json.loads((folder / "out/manifest.json").read_text("utf-8"))
