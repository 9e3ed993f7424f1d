"""JSONL files: what is written is read again, and errors name the file and the line."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.files.json_files import load_json, load_json_object, read_jsonl, write_jsonl


def test_rows_come_back_as_written(tmp_path):
    rows = [{"text": 'ü "quoted" \\ \u2028 \n', "n": 1}, {"text": ""}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


def test_a_byte_order_mark_and_empty_lines_are_not_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "rows.jsonl does not exist. Check the path."),
        (b'{"a": 1}\n{', "rows.jsonl, line 2: not JSON"),
        (b"[1]", "rows.jsonl, line 1: not a JSON object. Give a JSONL file, with one"),
        (b"\xff", "rows.jsonl is not UTF-8 \\(byte 0\\)"),
    ],
)
def test_the_error_names_a_file_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(OpsError, match=message):
        read_jsonl(tmp_path / "rows.jsonl")


def test_a_csv_file_is_told_how_to_become_jsonl(tmp_path):
    file = tmp_path / "my data.csv"
    file.write_text("question,answer\na,b\n")
    with pytest.raises(
        OpsError, match=r"`phi3 data --source '.*my data.csv'` writes questions.jsonl"
    ):
        read_jsonl(file)


@pytest.mark.parametrize("text", ['[{"a": 1},\n {"a": 2}]', '\ufeff\n[\n{"a": 1},{"a": 2}\n]\n'])
def test_a_json_file_may_hold_one_array(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_text(text, encoding="utf-8")
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, 3]', "row 2: not a JSON object"),
        ("[1", "not JSON"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_another_array_is_an_error(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(OpsError, match=message):
        read_jsonl(path)


def test_a_line_that_is_nested_too_deeply_is_an_error(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"a": 1}\n' + "[" * 200_000)
    with pytest.raises(OpsError, match="line 2: nested too deeply"):
        read_jsonl(path)


@pytest.mark.parametrize("content", [b"", b'{"a"', b"\0\0", b'\xff\xfe{"a": 1}', b"[" * 200_000])
def test_every_damage_of_a_json_file_is_a_value_error(tmp_path, content):
    file = tmp_path / "value.json"
    file.write_bytes(content)
    for load in (load_json, load_json_object):
        with pytest.raises(ValueError):
            load(file)


def test_a_json_file_that_must_be_an_object(tmp_path):
    file = tmp_path / "value.json"
    file.write_text("[1]")
    assert load_json(file) == [1]
    with pytest.raises(ValueError, match="not a JSON object"):
        load_json_object(file)
