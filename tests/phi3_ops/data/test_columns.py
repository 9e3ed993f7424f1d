"""The columns of questions and answers are found by their usual names."""

from __future__ import annotations

import json

import pytest

from chats import chat_row, prepare, write_csv, write_parquet, write_rows, written
from phi3_ops.data.columns import UnclearColumnsError, find_columns, guess_columns
from phi3_ops.errors import OpsError


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["Question", "Answer"], ("Question", "Answer", None)),
        (["answer", "n", "question"], ("question", "answer", None)),
        (["prompt", "completion"], ("prompt", "completion", None)),
        (["instruction", "input", "output"], ("instruction", "output", "input")),
        (["instruction", "context", "response"], ("instruction", "response", "context")),
        (["id", " Q ", "A"], (" Q ", "A", None)),
        (["User_", "assistant"], ("User_", "assistant", None)),
        (["messages", "prompt", "answer"], None),
        ([], None),
    ],
)
def test_usual_names(header, columns):
    assert guess_columns("in.csv", header) == columns


def test_unclear_names_are_listed_with_the_options():
    with pytest.raises(UnclearColumnsError) as caught:
        guess_columns("mine.csv", ["Nr", "Kundenfrage", "Text"])
    assert caught.value.what.startswith("mine.csv has the columns Nr, Kundenfrage, Text; which")
    assert caught.value.options == ["--prompt-column", "Kundenfrage", "--answer-column", "Text"]


def test_a_single_column_is_not_enough():
    with pytest.raises(OpsError, match="in.csv has only the column 'text'. Give a file with"):
        guess_columns("in.csv", ["text"])


ROWS = [{"question": f"q{n}", "answer": f"a{n}", "n": n} for n in range(10)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_each_format_needs_no_options(tmp_path, suffix):
    path = tmp_path / f"in.{suffix}"
    if suffix == "csv":
        write_csv(path, header=("Question", "Answer", "n"))
    else:
        (write_parquet if suffix == "parquet" else write_rows)(path, ROWS)
    manifest = prepare(tmp_path, path)
    assert [name.lower() for name in manifest.columns[:2]] == ["question", "answer"]
    first = written(tmp_path, "train")[0]["messages"]
    assert [message["content"] for message in first] == ["q0", "a0"]
    document = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [name.lower() for name in document["columns"]] == ["question", "answer"]


@pytest.mark.parametrize("lines", ["", "not JSON\n", "[1]\n", '{"text": "x"}\n', '{"n": 1}\n'])
def test_jsonl_without_two_texts_has_no_columns(tmp_path, lines):
    (tmp_path / "in.jsonl").write_text(lines)
    assert find_columns(tmp_path / "in.jsonl") is None


def test_rows_with_messages_need_no_columns(tmp_path):
    rows = [{"question": "q", "answer": "a"}, chat_row("q")]
    assert find_columns(write_rows(tmp_path / "in.jsonl", rows)) is None


def test_a_damaged_header_is_reported_as_a_row(tmp_path):
    (tmp_path / "in.csv").write_text('"question","ans"wer"\nq,a\n')
    assert find_columns(tmp_path / "in.csv") is None
