"""Runs to review: files with answers and scores of a judge, over a data file with references."""

from __future__ import annotations

import json

import pytest

from phi3_ops.review.session import ReviewSession, ReviewSettings
from phi3_ops.review.subjects import load_runs

LINES = 30
REASON = "It is not 56."


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    """data.jsonl, and the runs base.jsonl and tuned.jsonl; line 7 of base failed."""
    monkeypatch.chdir(tmp_path)
    data = [{"question": f"What is {n} times 8?", "ground_truth": str(n * 8)} for n in range(LINES)]
    write(tmp_path / "data.jsonl", data)
    for name in ("base", "tuned"):
        rows = [
            {
                "line_number": n,
                "answer": f"{name} says {n * 8}",
                "correctness": float(n % 5 + 1),
                "verdicts": {"correctness": {"reason": REASON}},
                "exact_match": 0.0,
            }
            for n in range(LINES)
            if (name, n) != ("base", 7)
        ]
        write(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


@pytest.fixture
def open_session(files):
    """Return a function that opens a review of some of the runs."""

    def open_session(*names, **settings):
        runs, data = load_runs([f"{name}.jsonl" for name in names], files / "data.jsonl")
        return ReviewSession(runs, data, ReviewSettings("correctness", **settings))

    return open_session


@pytest.fixture
def rate():
    """Return a function that rates every answer of a review by a function of its line and text."""

    def rate(session, rating):
        for position in range(len(session.lines)):
            line = session.line(position)
            for index, answer in enumerate(line["answers"]):
                if answer["text"] is not None:
                    value = rating(line["number"], answer["text"])
                    content = {"kind": "rating", "answer": index, "value": value}
                    session.judge(position, content)

    return rate
