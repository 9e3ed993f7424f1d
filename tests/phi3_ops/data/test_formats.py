"""JSONL, CSV and Parquet files: rows, problems, and the columns that hold prompt and answer."""

from __future__ import annotations

import base64
import json

import pytest

from chats import chat_row, prepare, write_csv, write_parquet, written, written_by_number
from phi3_ops.data.checks import EMPTY, NO_MESSAGES, NOT_JSON, NOT_UTF8
from phi3_ops.data.formats import (
    SourceRow,
    as_chats,
    open_table,
    read_csv,
    read_jsonl,
    read_parquet,
    table_rows,
)
from phi3_ops.errors import OpsError

CHATS = [chat_row(f"q{n}", f"a{n}", n=n) for n in range(10)]


def test_parquet(tmp_path):
    prepare(tmp_path, write_parquet(tmp_path / "in.parquet", CHATS))
    assert written_by_number(tmp_path) == CHATS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path, encoding):
    prepare(tmp_path, write_csv(tmp_path / "in.csv", encoding=encoding))
    chats = [{"prompt": f"q{n}", **CHATS[n], "n": str(n)} for n in range(10)]
    assert written_by_number(tmp_path) == chats


def test_columns_by_name(tmp_path):
    source = write_csv(tmp_path / "in.csv", header=("frage", "antwort", "n"))
    prepare(tmp_path, source, columns=("frage", "antwort"))
    assert [r["messages"] for r in written_by_number(tmp_path)] == [r["messages"] for r in CHATS]


def test_bad_records_of_a_csv(tmp_path):
    text = b'prompt,answer\nq1,a1\n"q\n2","a\n2"\nq3\nq4,\xe4\nq5,"a"5\nq6,\nq7,a7\n'
    (tmp_path / "in.csv").write_bytes(text)
    rows = prepare(tmp_path, tmp_path / "in.csv").rows
    assert (rows.read, rows.train + rows.test) == (7, 3)
    rejected = {(row["line"], row["reason"]) for row in written(tmp_path, "rejects")}
    assert rejected == {(6, "not CSV"), (7, NOT_UTF8), (8, "not CSV"), (9, EMPTY)}
    assert base64.b64decode(written(tmp_path, "rejects")[1]["base64"]) == b"q4,\xe4\n"


def test_byte_order_mark_and_line_ends(tmp_path):
    lines = [json.dumps(r) for r in CHATS]
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    prepare(tmp_path, tmp_path / "in.jsonl")
    assert written_by_number(tmp_path) == CHATS
    assert b"\r" not in (tmp_path / "out" / "train.jsonl").read_bytes()


def test_rows_of_jsonl_know_where_they_are(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\n\n{"n": 2}\n{\n\xff\n')
    rows = list(read_jsonl(path, None))
    assert [(row.line, row.row) for row in rows] == [
        (1, {"n": 1}),
        (3, {"n": 2}),
        (4, None),
        (5, None),
    ]
    assert [row.problem.reason for row in rows[2:]] == [NOT_JSON, NOT_UTF8]
    content = path.read_bytes()
    for row in rows[:2]:
        assert content[row.start : row.start + len(row.raw)] == row.raw


def test_a_record_of_several_lines_has_the_number_of_its_first_line(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(b'prompt,answer\n"q\n1",a1\nq2,a2\n')
    assert [row.line for row in read_csv(path, None)] == [2, 4]


@pytest.mark.parametrize(("start", "stop"), [(0, None), (4, 7), (2, 3), (9, 20)])
def test_a_slice_of_a_table(tmp_path, start, stop):
    path = write_parquet(tmp_path / "in.parquet", CHATS)
    with path.open("rb") as file:
        table = open_table(file, "in.parquet", None)
        rows = list(table_rows(table, "in.parquet", None, start, stop))
    assert [row.row for row in rows] == CHATS[start:stop]
    assert [row.line for row in rows] == list(range(start + 1, min(stop or 10, 10) + 1))


def test_a_missing_column_is_named(tmp_path):
    path = write_parquet(tmp_path / "in.parquet", [{"question": "q", "answer": "a"}])
    with pytest.raises(OpsError, match="has no column 'messages', only question, answer"):
        list(read_parquet(path, None))


def test_prompt_and_answer_become_messages_and_other_columns_stay():
    source_rows = [
        SourceRow(1, {"q": "x", "a": "y", "n": 1}),
        SourceRow(2, {"q": "x"}),
        SourceRow(3, [1]),
    ]
    first, *others = as_chats(iter(source_rows), ("q", "a"))
    assert first.row == {"prompt": "x", **chat_row("x", "y"), "n": 1}
    assert [row.problem for row in others] == [(NO_MESSAGES, "no 'q' and 'a'")] * 2
