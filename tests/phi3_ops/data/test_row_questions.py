"""The questions of test files of any form."""

import json

import pytest

from chats import chat_row, write_rows
from phi3_ops.data.row_questions import has_chats, questions_of_row, read_test_questions
from phi3_ops.errors import OpsError

TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "2"},
]


@pytest.mark.parametrize(
    ("row", "questions"),
    [
        ({"messages": TURNS}, ["one?", "two?"]),
        ({"question": "one?", "ground_truth": "1"}, ["one?"]),
        ({"prompt": TURNS[:2], "chosen": "1", "rejected": "2"}, ["one?"]),
        ({"input_data": "one?"}, ["one?"]),
        ({"text": "one?"}, []),
        ({"question": 3}, []),
        ({"messages": ["one?", {"role": "user", "content": None}]}, []),
    ],
)
def test_the_questions_of_a_row(row, questions):
    assert questions_of_row(row) == questions


def test_files_of_all_forms_are_read(tmp_path):
    chats = write_rows(tmp_path / "test.jsonl", [chat_row("Who founded it?", "Ann.")])
    table = tmp_path / "faq.csv"
    table.write_text("question,answer\nWhere is it?,Here.\n", encoding="utf-8")
    array = tmp_path / "rows.json"
    array.write_text(json.dumps([{"question": "When was it?"}]), encoding="utf-8")
    known = read_test_questions([chats, table, array])
    assert len(known) == 3
    assert known.find("who founded it") and known.find("where is it") and known.find("when was it")


def test_a_row_without_a_question_and_an_empty_file_are_errors(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "one?"}, {"text": "two"}])
    with pytest.raises(OpsError, match="rows.jsonl, line 2 has no question"):
        read_test_questions([rows])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(OpsError, match="empty.jsonl has no rows"):
        read_test_questions([tmp_path / "empty.jsonl"])
    with pytest.raises(OpsError, match="gone.jsonl does not exist"):
        read_test_questions([tmp_path / "gone.jsonl"])


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("chats.jsonl", [chat_row("one?", "1")], True),
        ("questions.jsonl", [{"question": "one?"}], False),
        ("empty.jsonl", [], False),
        ("table.csv", [chat_row("one?", "1")], False),
    ],
)
def test_a_file_of_questions_has_no_chats(tmp_path, name, rows, expected):
    write_rows(tmp_path / name, rows)
    assert has_chats(tmp_path / name) is expected
