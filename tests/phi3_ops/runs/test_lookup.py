"""A run is found by its name, or by its display name, which stands for the newest run."""

from __future__ import annotations

import pytest

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.runs.batch import load_batch
from phi3_ops.runs.lookup import earlier_run, find_run, require_run, run_name

QA = paths.FLOWS / "qa"


def test_a_name_and_a_display_name(server, ask, write_questions):
    data = write_questions("right")
    older, newer = ask(QA, data), ask(QA, data)
    assert find_run(older.name).name == run_name(older.name) == older.name
    assert require_run("t").name == newer.name
    assert load_batch("t") == newer
    assert earlier_run(newer.name) == older.name
    assert earlier_run(older.name) is None


def test_a_run_over_other_data_is_not_comparable(server, ask, write_questions, tmp_path):
    ask(QA, write_questions("right"))
    other = tmp_path / "other" / "data.jsonl"
    other.parent.mkdir()
    other.write_text(write_questions("right").read_text())
    assert earlier_run(ask(QA, other).name) is None


def test_a_run_that_does_not_exist():
    assert find_run("nowhere") is None
    with pytest.raises(OpsError, match="the run 'nowhere' does not exist.*phi3 runs"):
        require_run("nowhere")
