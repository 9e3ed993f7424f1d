"""The file of the judgements: append-only, complete lines only, no other version."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.review.records import RATING, JudgedAnswer, Judgement
from phi3_ops.review.store import append_judgement, read_file, read_judgements, review_file
from phi3_ops.runs import RunLocation


def rating(line, value=3):
    answers = (JudgedAnswer("asked", "54\u2028"),)
    return Judgement("id", "2026-01-01", RATING, line, "What?", None, answers, rating=value)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "review.jsonl"


def test_judgements_are_read_in_the_order_in_which_they_were_made(file):
    made = [rating(line) for line in (2, 0, 1)]
    for each in made:
        append_judgement(file, each)
    assert read_file(file) == made
    assert json.loads(file.read_text().splitlines()[0]) == {"format": "phi3-review", "version": 1}
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_are_no_judgements(file):
    assert read_file(file) == []


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_an_incomplete_last_line_is_ignored_and_cut_off(file, cut):
    append_judgement(file, rating(0))
    append_judgement(file, rating(1))
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_file(file) == [rating(0)]
    append_judgement(file, rating(2))
    assert read_file(file) == [rating(0), rating(2)]


def test_an_incomplete_header_is_completed(file):
    file.write_text('{"format": "phi3-re')
    assert read_file(file) == []
    append_judgement(file, rating(0))
    assert read_file(file) == [rating(0)]


@pytest.mark.parametrize(
    "content, reason",
    [
        ('{"format": "phi3-review", "version": 2}\n', "newer version of phi3 .format 2"),
        ('{"question": "What?"}\n', "not a file of judgements"),
        ("# notes", "not a file of judgements"),
        ("5\n", "not a file of judgements"),
    ],
)
def test_another_file_is_refused_and_not_changed(file, content, reason):
    file.write_text(content)
    with pytest.raises(OpsError, match=reason):
        read_file(file)
    with pytest.raises(OpsError, match=reason):
        append_judgement(file, rating(0))
    assert file.read_text() == content


def test_a_damaged_line_is_named(file):
    append_judgement(file, rating(0))
    file.write_text(file.read_text() + "[]\n")
    with pytest.raises(OpsError, match=r"review.jsonl, line 3 is not a judgement: .* Remove"):
        read_file(file)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OpsError, match="cannot write .*The judgement was not saved"):
        append_judgement(tmp_path / "gone" / "review.jsonl", rating(0))


def test_several_writers_lose_nothing(file):
    def write(start):
        for line in range(start, start + 10):
            append_judgement(file, rating(line))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(each.line for each in read_file(file)) == list(range(30))


WRITER = """
import sys
from pathlib import Path
from phi3_ops.review.records import RATING, JudgedAnswer, Judgement
from phi3_ops.review.store import append_judgement
for line in range(100_000):
    answers = (JudgedAnswer("asked", "54" * 1000),)
    judgement = Judgement("id", "2026-01-01", RATING, line, "What?", None, answers, rating=3)
    append_judgement(Path(sys.argv[1]), judgement)
    print(line, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(file):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.kill()
        rest = process.stdout.read().split("\n")[:-1]
    acknowledged = int(rest[-1]) if rest else acknowledged
    lines = [each.line for each in read_file(file)]
    assert lines == list(range(len(lines))) and len(lines) > acknowledged


def test_the_file_is_beside_the_run(tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"answer": "54"}\n')
    assert review_file(RunLocation("asked", tmp_path)) == tmp_path / "review.jsonl"
    assert review_file(RunLocation("answers", answers)) == tmp_path / "answers.review.jsonl"
    append_judgement(tmp_path / "answers.review.jsonl", rating(0, 1))
    append_judgement(tmp_path / "answers.review.jsonl", rating(0, 5))
    assert read_judgements(str(answers)) == [rating(0, 5)]


def test_a_run_that_does_not_exist_is_an_error():
    with pytest.raises(OpsError, match="does not exist"):
        read_judgements("nothing-of-this-name")
