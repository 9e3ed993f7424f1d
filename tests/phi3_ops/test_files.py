from __future__ import annotations

import pytest

from phi3_ops import files
from phi3_ops.errors import OpsError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    target.parent.mkdir()
    target.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(target) as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_rows_come_back_as_written(tmp_path):
    rows = [{"text": 'ü "quoted" \\ \u2028 \n', "n": 1}, {"text": ""}]
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_a_byte_order_mark_and_empty_lines_are_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert files.read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsError, match="cannot write"):
        files.write_json(tmp_path / "file" / "x.json", {})
