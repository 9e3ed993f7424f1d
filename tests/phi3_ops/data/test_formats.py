"""JSONL, CSV and Parquet files: rows, problems, and the columns that hold prompt and answer."""

from __future__ import annotations

import base64
import json

import pytest

from chats import chat_row, prepare, write_csv, write_parquet, written, written_by_number
from phi3_ops.data import line_limits
from phi3_ops.data.checks import EMPTY, NO_MESSAGES, NOT_JSON, NOT_UTF8
from phi3_ops.data.formats import (
    as_chats,
    open_table,
    read_csv,
    read_jsonl,
    read_parquet,
    table_rows,
)
from phi3_ops.data.line_limits import bounded_lines
from phi3_ops.data.source_rows import SourceRow, TextColumns
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
    prepare(tmp_path, source, columns=TextColumns("frage", "antwort"))
    assert [r["messages"] for r in written_by_number(tmp_path)] == [r["messages"] for r in CHATS]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_of_a_csv_is_found(tmp_path, delimiter):
    lines = [("Question", "Answer"), *((f"q{n}?", '"yes, please; or no"') for n in range(4))]
    path = tmp_path / "in.tsv"
    path.write_text("\n".join(delimiter.join(cells) for cells in lines), encoding="utf-8")
    prepare(tmp_path, path)
    chats = written(tmp_path, "train") + written(tmp_path, "test")
    answers = [row["messages"][1]["content"] for row in chats]
    assert answers == ["yes, please; or no"] * 4


def test_a_context_is_added_to_the_prompt():
    rows = [{"i": "Sum up", "c": "a text", "o": "x"}, {"i": "Say hi", "c": " ", "o": "y"}]
    source_rows = [SourceRow(number, row) for number, row in enumerate(rows, 1)]
    chats = [row.row for row in as_chats(iter(source_rows), TextColumns("i", "o", "c"))]
    assert [chat["messages"][0]["content"] for chat in chats] == ["Sum up\n\na text", "Say hi"]


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


@pytest.mark.finding(
    13,
    "a file of JSONL or CSV without line ends",
    "a line of more than 16 MiB is refused in one line, before it is read",
)
@pytest.mark.parametrize(
    ("name", "text", "location"),
    [
        ("in.jsonl", '{"a": 1}\n' + "x" * 101, ", line 2"),
        ("in.jsonl", "x" * 101 + "\n", ", line 1"),
        ("in.csv", "prompt,answer\n" + "x" * 101, ", line 2"),
        ("in.csv", "x" * 101, ", line 1"),
        # a record of many short lines
        (
            "in.csv",
            "prompt,answer\na,b\na," + '"x\nx\n",' * 30,
            ": the record that begins in line 3",
        ),
    ],
)
def test_a_line_that_is_too_long_is_an_error(tmp_path, monkeypatch, name, text, location):
    monkeypatch.setattr(line_limits, "MAX_LINE", 100)
    path = tmp_path / name
    path.write_text(text)
    read = read_csv if name.endswith("csv") else read_jsonl
    with pytest.raises(OpsError) as caught:
        list(read(path, None))
    assert (
        str(caught.value) == f"{path}{location} is longer than 100 bytes. Write one row per line."
    )


def test_no_more_than_the_limit_is_read_of_a_line(tmp_path):
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 32)  # a sparse file of zeros
    with path.open("rb") as file:
        with pytest.raises(OpsError, match="in.jsonl, line 1 is longer than 16,777,216 bytes"):
            next(bounded_lines(file, "in.jsonl"))
        assert file.tell() == line_limits.MAX_LINE + 1


def test_a_header_of_many_columns_is_shortened_in_the_error(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(",".join(f"c{n}" for n in range(100_000)))
    with pytest.raises(OpsError, match="only c0, c1, .*, c19 and 99980 more. ") as caught:
        list(read_csv(path, None))
    assert len(str(caught.value)) < 500


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
    first, *others = as_chats(iter(source_rows), TextColumns("q", "a"))
    assert first.row == {"prompt": "x", **chat_row("x", "y"), "n": 1}
    assert [row.problem for row in others] == [(NO_MESSAGES, "no 'q' and 'a'")] * 2
