"""Calibration: made from ratings, written only if it helps, and applied to the same judge only."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.review.calibration import (
    calibrate_run,
    make_calibration,
    read_calibration,
    write_calibration,
)
from phi3_ops.runs.scored import load_scored_run

STRICT = {1: 1, 2: 3, 3: 4, 4: 5, 5: 5}  # what the reviewer gives where the judge gives 1 to 5


@pytest.fixture
def session(open_session, rate):
    session = open_session("base")
    rate(session, lambda line, text: STRICT[line % 5 + 1])
    return session


def calibration_of(session):
    return make_calibration(session.runs, session.judgements, "correctness")


def test_scores_become_ratings(session):
    calibration = calibration_of(session)
    assert calibration.points == list(STRICT.items())
    assert [calibration.rating(score) for score in (0, 1, 1.5, 3, 9)] == [1, 1, 2, 4, 5]
    assert calibration.n == 29
    assert calibration.error_after == 0 < calibration.error_before


def test_it_is_read_back_as_it_was_written(session, tmp_path):
    calibration = calibration_of(session)
    write_calibration(tmp_path / "calibration.json", calibration)
    write_calibration(tmp_path / "calibration.json", calibration)
    assert read_calibration(tmp_path / "calibration.json") == calibration


def test_too_few_ratings_are_refused(open_session):
    session = open_session("base")
    session.judge(0, {"kind": "rating", "answer": 0, "value": 3})
    with pytest.raises(OpsError, match="only 1 lines are rated .* needs 20 lines"):
        calibration_of(session)


def test_two_answers_to_a_line_are_one_line(open_session, rate):
    session = open_session("base", "tuned", lines=15)
    rate(session, lambda line, text: STRICT[line % 5 + 1])
    runs = [replace(run, judges=[replace(run.judges[0], facts={})]) for run in session.runs]
    with pytest.raises(OpsError, match="only 15 lines are rated"):
        make_calibration(runs, session.judgements, "correctness")


def test_a_calibration_that_does_not_help_is_refused(open_session, rate):
    session = open_session("base")
    rate(session, lambda line, text: line % 5 + 1)
    with pytest.raises(OpsError, match="would not bring base.jsonl nearer .* No file was written"):
        calibration_of(session)


def test_two_judges_are_refused(open_session, rate):
    session = open_session("base", "tuned")
    with pytest.raises(OpsError, match="needs one judge .* have 2. Name its runs with --judge"):
        calibration_of(session)


def test_it_replaces_the_scores_of_its_judge(session, files):
    run = load_scored_run("base.jsonl", files / "data.jsonl")
    calibrated = calibrate_run(run, calibration_of(session))
    assert [calibrated.scored.rows[line]["correctness"] for line in range(5)] == [1, 3, 4, 5, 5]
    assert calibrated.facts["correctness calibrated"] == "base.jsonl, by 29 ratings"


def test_another_judge_is_refused(session, files):
    run = load_scored_run("base.jsonl", files / "data.jsonl")
    other = replace(run, scored=replace(run.scored, facts={"judge.connection": "other"}))
    with pytest.raises(
        OpsError, match="another judge .* judge.connection is None there and 'other'"
    ):
        calibrate_run(other, calibration_of(session))


def test_a_run_without_the_score_is_refused(session, files):
    run = load_scored_run("base.jsonl", files / "data.jsonl")
    other = replace(run, scored=replace(run.scored, rows={0: {"fluency": 3}}))
    with pytest.raises(OpsError, match="has no scores by correctness"):
        calibrate_run(other, calibration_of(session))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"version": 2}, "newer version of phi3"),
        ({"format": "other"}, "not a calibration"),
        ({"points": []}, "not a calibration"),
        ({"points": [[1, 3], [2, 2]]}, "ascending"),
        ({"points": [[2, 2], [1, 3]]}, "ascending"),
        ({"n": None}, "not a calibration"),
    ],
    ids=str,
)
def test_a_wrong_file_is_refused_and_not_replaced(session, tmp_path, change, reason):
    file = tmp_path / "calibration.json"
    write_calibration(file, calibration_of(session))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    before = file.read_text()
    with pytest.raises(OpsError, match=reason):
        read_calibration(file)
    with pytest.raises(OpsError, match=reason):
        write_calibration(file, calibration_of(session))
    assert file.read_text() == before


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(OpsError, match="does not exist"):
        read_calibration(tmp_path / "gone.json")
