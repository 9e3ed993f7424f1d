"""`phi3 review` prints the address of its page, the summary, a calibration and a panel."""

from __future__ import annotations

import json
import re

import pytest
import requests

from documented_commands import documented
from phi3_ops.cli import main
from phi3_ops.review.records import RATING, JudgedAnswer, Judgement
from phi3_ops.review.store import append_judgement, read_judgements
from served_review import HANG_S
from served_review import phi3_review as running_review


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """data.jsonl, and the runs A.jsonl and B.jsonl with scores of a judge; 25 lines of A are rated."""
    monkeypatch.chdir(tmp_path)
    data = [{"question": f"q{n} \x1b[2J", "ground_truth": str(n)} for n in range(30)]
    write(tmp_path / "data.jsonl", data)
    for name in ("A", "B"):
        rows = [
            {"line_number": n, "answer": f"{name} {n}", "correctness": n % 5 + 1} for n in range(30)
        ]
        write(tmp_path / f"{name}.jsonl", rows)
    for line in range(25):
        for name, rating in (("A", max(line % 5, 1)), ("B", 5)):
            answers = (JudgedAnswer(str((tmp_path / f"{name}.jsonl").resolve()), f"{name} {line}"),)
            judgement = Judgement(
                f"{line}", "2026-01-01", RATING, line, "q", None, answers, "correctness", rating
            )
            append_judgement(tmp_path / f"{name}.review.jsonl", judgement)
    return tmp_path


def phi3_review(*words):
    return main(["review", *words, "--data", "data.jsonl"])


@documented("phi3 review RUN --summary")
def test_the_summary_is_a_table(files, capsys):
    assert phi3_review("A.jsonl", "--summary") == 0
    printed = capsys.readouterr().out
    assert "Ratings by correctness; the data has 30 lines" in printed
    assert "Agreement with A.jsonl: correctness" in printed
    assert "Cohen's kappa with quadratic weights: 0." in printed
    assert "mean of the judge's score minus the rating: +0.80" in printed
    assert "\x1b[2J" not in printed


def test_the_summary_is_json(files, capsys):
    assert phi3_review("A.jsonl", "B.jsonl", "--summary", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["rubric"], document["lines"]) == (1, "correctness", 30)
    assert [run["rated"] for run in document["runs"]] == [25, 25]
    assert [judge["judge"] for judge in document["judges"]] == ["A.jsonl", "B.jsonl"]
    assert document["panels"] == []  # the two judges scored different answers


@documented("phi3 review RUN --calibrate calibration.json")
def test_a_calibration_is_written_and_compare_reads_it(files, capsys):
    assert phi3_review("A.jsonl", "--calibrate", "my calibration.json") == 0
    next_command = "phi3 compare A B --metric correctness --calibration 'my calibration.json'"
    assert f"next: {next_command}\n" in capsys.readouterr().out
    assert phi3_review("A.jsonl", "--calibrate", "calibration.json") == 0
    printed = capsys.readouterr().out
    assert "mean difference from 25 ratings 0.800 before, 0.000 after (cross-validated)" in printed
    assert "score 5 stands for a rating of 4.00" in printed
    words = ["compare", "A.jsonl", "B.jsonl", "--data", "data.jsonl", "--metric", "correctness"]
    assert main([*words, "--calibration", "calibration.json", "--resamples", "100", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert runs[0]["scores"]["correctness"]["mean"] == pytest.approx(2.2)


@documented("phi3 compare base tuned --gate review:0.2")
def test_the_ratings_gate_a_comparison(files, capsys):
    words = ["--data", "data.jsonl", "--metric", "review", "--resamples", "100"]
    assert main(["compare", "A.jsonl", "B.jsonl", *words, "--gate", "review:0.2"]) == 0
    assert "gate: pass" in capsys.readouterr().out
    assert main(["compare", "B.jsonl", "A.jsonl", *words, "--gate", "review:0.2"]) == 1
    assert "gate: regression" in capsys.readouterr().out


def test_a_panel_is_written_and_compare_reads_it(files, capsys):
    write(files / "panel-of-one.jsonl", [])
    assert phi3_review("A.jsonl", "--panel", "panel.jsonl") == 1
    assert "does not have scores of two judges" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, code, reason",
    [
        (["gone"], 1, "the run 'gone' does not exist"),
        (["gone.jsonl"], 1, "gone.jsonl does not exist"),
        (["A.jsonl", "A.jsonl"], 1, "A.jsonl is given twice. Give each run once."),
        (["A.jsonl", "--rubric", "taste"], 1, "the rubric 'taste' does not exist"),
        (["A.jsonl", "--judge", "nobody"], 1, "nobody is not a completed evaluation"),
        (["A.jsonl", "B.jsonl", "--panel", "p.jsonl"], 1, "--panel writes the scores of one run"),
        (["A.jsonl", "--rubric", "fluency", "--calibrate", "c.json"], 1, "needs one judge"),
        (
            ["A.jsonl", "--rubric", "correctness,fluency"],
            1,
            "Use one rubric, for example correctness",
        ),
        (["A.jsonl", "--json"], 2, "--json needs --summary"),
        (["A.jsonl", "--summary", "--lines", "5"], 2, "--lines is for the page"),
        (["A.jsonl", "--calibrate", "c.json", "--seed", "2"], 2, "--seed is for the page"),
        (["A.jsonl", "--panel", "p.jsonl", "--rubric", "fluency"], 2, "--rubric has no effect"),
        (["A.jsonl", "--lines", "0"], 2, "0 is below 1"),
        (["A.jsonl", "--summary", "--panel", "p.jsonl"], 2, "not allowed with"),
    ],
)
def test_wrong_words_are_one_clear_line(files, capsys, words, code, reason):
    try:
        assert phi3_review(*words) == code
    except SystemExit as exit:
        assert exit.code == code
    assert reason in capsys.readouterr().err


def test_a_file_of_a_newer_version_is_not_touched(files, capsys):
    newer = '{"format": "phi3-review", "version": 2}\n{"new": true}\n'
    (files / "A.review.jsonl").write_text(newer)
    assert phi3_review("A.jsonl") == 1
    assert "newer version of phi3" in capsys.readouterr().err
    assert (files / "A.review.jsonl").read_text() == newer


@documented("phi3 review base tuned")
def test_the_address_of_the_page_is_printed(files):
    with running_review("A.jsonl", "B.jsonl", "--data", "data.jsonl", cwd=files) as review:
        assert review.lines[0] == "25 of 30 lines are judged"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", review.url)
        body = {"kind": "rating", "answer": 0, "value": 2}
        assert requests.post(f"{review.url}lines/0", json=body, timeout=HANG_S).ok
        review.process.kill()
    ratings = [*read_judgements(str(files / "A.jsonl")), *read_judgements(str(files / "B.jsonl"))]
    assert [each.rating for each in ratings if each.time != "2026-01-01"] == [2]
