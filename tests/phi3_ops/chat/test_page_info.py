"""Captions and suggested questions of the chat page."""

from __future__ import annotations

import json

import pytest

from phi3_ops.chat.page_info import connection_caption, suggested_questions


@pytest.mark.parametrize(
    ("connection", "caption"), [("phi3", ""), ("phi3-base", "not fine-tuned"), ("database", "")]
)
def test_the_base_model_is_called_not_fine_tuned(connection, caption):
    assert connection_caption(connection) == caption


def test_three_questions_with_different_answers_are_suggested(tmp_path):
    rows = [{"question": f"q{n}", "ground_truth": f"a{n // 2}"} for n in range(20)]
    rows[0] = {"question": "x" * 500, "ground_truth": "long"}
    lines = ["not JSON", "[]", json.dumps({"n": 1}), *map(json.dumps, rows)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    assert suggested_questions(tmp_path / "questions.jsonl") == ["q1", "q2", "q4"]


def test_questions_without_answers_are_suggested_too(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"question": "q"}\n{"question": "q"}\n')
    assert suggested_questions(tmp_path / "samples.jsonl") == ["q"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_suggests_nothing(tmp_path, content):
    if content:
        (tmp_path / "in.jsonl").write_bytes(content)
    assert suggested_questions(tmp_path / "in.jsonl") == []
