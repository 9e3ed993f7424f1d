"""Feedback as a file of JSON lines: complete, or absent; never in the place of another file."""

from __future__ import annotations

import json

import pytest

from feedback_records import feedback
from phi3_ops.errors import OpsError
from phi3_ops.feedback.export import export_feedback


def test_one_object_per_line(tmp_path):
    records = [feedback(comment="a\u2028b\n\0"), feedback(id="f2", answer="größer 🙂")]
    file = tmp_path / "new" / "feedback.jsonl"
    export_feedback(records, file)
    lines = file.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [record.to_json() for record in records]
    assert lines[-1] == ""
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_existing_file_is_not_replaced(tmp_path):
    file, link = tmp_path / "feedback.jsonl", tmp_path / "link.jsonl"
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for path in (file, link, tmp_path):
        with pytest.raises(OpsError, match="exists already. Choose another file, or remove it."):
            export_feedback([feedback()], path)
    assert file.read_text() == "mine" and not link.exists()


def test_a_failure_leaves_no_file(tmp_path):
    with pytest.raises(AttributeError):
        export_feedback([feedback(), None], tmp_path / "feedback.jsonl")
    assert list(tmp_path.iterdir()) == []
