"""`phi3 feedback` lists, exports and deletes what `phi3 serve --feedback` has stored."""

from __future__ import annotations

import json
import sqlite3

import pytest

from documented_commands import documented, printed
from feedback_records import feedback
from phi3_ops.cli import feedback as command
from phi3_ops.cli import main
from phi3_ops.feedback import records
from phi3_ops.feedback.store import Deletion, FeedbackStore, default_store


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = FeedbackStore(default_store())
    store.create()
    store.add(feedback(comment="nice\x1b[2J", answer="Paris. " * 20))
    edit = {"kind": "edit", "edited": "Yes.", "flow": "qa", "conversation": "c2", "who": None}
    store.add(feedback(id="f2", time="2026-11-27T17:00:00.000+00:00", **edit))
    return store


def run(capsys, *words):
    code = main(["feedback", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def items(capsys, *words):
    code, output, _ = run(capsys, "list", "--json", *words)
    assert code == 0
    return [item["id"] for item in json.loads(output)["items"]]


@documented("phi3 feedback list")
def test_list(capsys):
    code, output, _ = run(capsys, "list")
    lines = output.splitlines()
    assert code == 0 and len(lines) == 3
    assert lines[0].split() == [
        *("time", "who", "kind", "conversation", "question", "answer", "details")
    ]
    assert "thumbs_up" in lines[1] and "ann" in lines[1] and "nice‹U+001B›[2J" in lines[1]
    assert f"{('Paris. ' * 20)[:39]}…" in lines[1]
    assert "edit" in lines[2] and "c2" in lines[2] and lines[2].rstrip().endswith("Yes.")


def test_json_has_every_field(capsys, store):
    _, output, _ = run(capsys, "list", "--json", "--last", "1")
    document = json.loads(output)
    assert document == {"items": [store.records()[1].to_json()], "older": 1}


def test_filters(capsys):
    assert items(capsys) == ["f1", "f2"]
    assert items(capsys, "--kind", "edit") == ["f2"]
    assert items(capsys, "--flow", "chat") == ["f1"]
    assert items(capsys, "--conversation", "c2") == ["f2"]
    assert items(capsys, "--since", "2026-11-27T17:00:00+00:00") == ["f2"]
    assert items(capsys, "--since", "2026-11-20") == ["f1", "f2"]
    assert items(capsys, "--since", "2026-12-20") == []
    code, output, _ = run(capsys, "list", "--kind", "comment")
    assert (code, output) == (0, "no feedback\n")


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("yesterday", "is not a time; use for example 2026-11-01"),
        ("", "is not a time; use for example 2026-11-01"),
        ("0001-01-01T00:00:00+23:59", "is outside the years 1 to 9999 in UTC"),
    ],
)
def test_a_time_that_is_not_valid_is_a_usage_error(capsys, time, message):
    with pytest.raises(SystemExit) as error:
        main(["feedback", "list", "--since", time])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@documented("phi3 feedback export --out feedback.jsonl")
def test_export(capsys, store, tmp_path):
    words = printed("phi3 feedback export …").split()[2:]
    assert run(capsys, *words)[:2] == (0, "wrote 2 records to feedback.jsonl\n")
    rows = [json.loads(line) for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    assert rows == [record.to_json() for record in store.records()]
    code, _, error = run(capsys, *words)
    assert code == 1 and "feedback.jsonl exists already. Choose another file" in error
    assert run(capsys, "export", "--kind", "edit", "--out", "edits.jsonl")[0] == 0
    assert (tmp_path / "edits.jsonl").read_text().count("\n") == 1


def test_an_export_that_fails_leaves_no_file(capsys, store, tmp_path):
    database = sqlite3.connect(store.file)
    database.execute("DROP TRIGGER feedback_is_append_only")
    database.execute("UPDATE feedback SET turn = 0 WHERE id = 'f2'")
    database.commit()
    database.close()
    code, _, error = run(capsys, "export", "--out", "out.jsonl")
    assert code == 1 and "is damaged: turn: is not between 1 and" in error
    assert not (tmp_path / "out.jsonl").exists()


@documented("phi3 feedback delete --conversation ID")
def test_delete(capsys, store, monkeypatch):
    words = printed("phi3 feedback delete …", ID="c1").split()[2:]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    code, _, error = run(capsys, *words)
    assert code == 1 and "cannot ask for confirmation without a terminal. Give --yes." in error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert run(capsys, *words)[:2] == (1, "nothing was deleted\n")
    assert len(store.records()) == 2
    deleted = "deleted 1 record of the conversation c1\n"
    assert run(capsys, *words, "--yes")[:2] == (0, deleted)
    assert [record.id for record in store.records()] == ["f2"]
    code, _, error = run(capsys, *words, "--yes")
    assert code == 1 and "has no feedback of the conversation 'c1'" in error


def test_export_and_delete_print_json(capsys):
    assert run(capsys, "export", "--out", "f.jsonl", "--json")[:2] == (
        *(0, '{"records": 2, "file": "f.jsonl"}\n'),
    )
    assert run(capsys, "delete", "--conversation", "c1", "--yes", "--json")[:2] == (
        *(0, '{"records": 1, "texts_overwritten": true}\n'),
    )


def test_texts_that_could_not_be_overwritten_are_reported(capsys, monkeypatch):
    left = Deletion(1, are_texts_gone=False)
    monkeypatch.setattr(FeedbackStore, "delete_conversation", lambda store, conversation: left)
    code, output, error = run(capsys, "delete", "--conversation", "c1", "--yes")
    assert (code, output) == (0, "deleted 1 record of the conversation c1\n")
    assert "the deleted texts are still in its files" in error


@pytest.mark.parametrize("words", [["list"], ["export", "--out", "x"]])
def test_a_store_that_does_not_exist_is_one_line(capsys, words, tmp_path):
    code, _, error = run(capsys, *words, "--store", "other.sqlite")
    assert code == 1 and len(error.splitlines()) == 1
    assert "other.sqlite does not exist" in error
    assert not (tmp_path / "other.sqlite").exists()


def test_the_option_has_the_kinds_of_the_records():
    assert command.KINDS == records.KINDS


def test_without_a_subcommand_the_help_is_printed(capsys):
    code, output, _ = run(capsys)
    assert code == 0 and "delete the feedback of one conversation" in output
