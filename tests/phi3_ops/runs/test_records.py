"""The records of lines: what is written is read again, and damaged ones are left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from phi3_ops.runs.records import LineRecords, read_completed_lines, read_line_usage


@dataclass
class Result:
    """The parts of a `LineResult` that a record has."""

    outputs: dict
    inputs: dict = field(default_factory=lambda: {"text": "t"})
    node_runs: dict = field(default_factory=dict)
    started: float = 1.0
    seconds: float = 2.0
    error: None = None


@pytest.mark.parametrize(
    "text", ["a\u2028b\x85c\x0cd", "half of \ud83d a pair"], ids=["ends", "half"]
)
def test_any_text_is_read_as_written(tmp_path, text):
    LineRecords(tmp_path, "run").add(3, Result({"answer": text}), {"prompt_tokens": 5})
    assert read_completed_lines(tmp_path)[3].outputs == {"answer": text}
    assert read_line_usage(tmp_path)[3].prompt_tokens == 5


@pytest.mark.parametrize(
    "change",
    [{"run_info": []}, {"status": None}, {"line_number": "3"}, {"run_info": {"inputs": None}}],
    ids=str,
)
def test_a_damaged_record_is_left_out(tmp_path, change):
    records = LineRecords(tmp_path, "run")
    for line in range(2):
        records.add(line, Result({"answer": "a"}), {})
    file = sorted((tmp_path / "flow_artifacts").iterdir())[0]
    record = json.loads(file.read_text(encoding="utf-8"))
    for content in (json.dumps({**record, **change}), "[" * 200_000, "\0", "5"):
        file.write_text(content)
        assert list(read_completed_lines(tmp_path)) == list(read_line_usage(tmp_path)) == [1]
