"""The journal of the teacher's answers survives whatever ends the process."""

import json

import pytest

from phi3_ops.documents.journal import Journal, JournalEntry
from phi3_ops.errors import OpsError

FIRST, SECOND = JournalEntry("k1", "Grüße\n", 2, 10, 5), JournalEntry("k2", "two")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "new" / "rows.journal.jsonl"
    with Journal(path) as journal:
        journal.add(FIRST)
        journal.add(SECOND)
    return path


def test_answers_are_there_when_it_is_opened_again(file):
    with Journal(file) as journal:
        assert journal.entries == [FIRST, SECOND]
        assert journal.get("k1") == FIRST and journal.get("k3") is None
    assert FIRST.tokens == 15


def test_any_torn_end_is_cut_off(file):
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    for size in range(0, len(content), 7):
        file.write_bytes(content[:size])
        complete = content[:size].count(b"\n") - 1
        with Journal(file) as journal:
            assert journal.entries == [FIRST, SECOND][: max(complete, 0)]
            journal.add(SECOND)
        assert file.read_bytes() == b"".join([*lines[: max(complete, 0) + 1], lines[2]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "phi3-documents", "version": 2}\n', "written by a newer version"),
        ('{"a": 1}\n', "is not a journal"),
        ("my notes", "is not a journal"),
        ("[]\n[]\n", "is not a journal"),
    ],
)
def test_other_files_are_refused_and_not_changed(tmp_path, content, message):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(OpsError, match=message):
        Journal(file)
    assert file.read_text() == content


def test_a_damaged_line_is_named(file):
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "{}", lines[2], ""]))
    with pytest.raises(OpsError, match="line 2 is damaged"):
        Journal(file)


def test_two_processes_do_not_write_one_journal(file):
    with Journal(file), pytest.raises(OpsError, match="another phi3 data is writing"):
        Journal(file)


def test_a_full_disk_is_an_error_and_leaves_no_torn_line(file, monkeypatch):
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with Journal(file) as journal:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OpsError, match="No space left on device"):
            journal.add(JournalEntry("k3", "three"))
        assert journal.get("k3") is None
    assert file.read_bytes() == before
    assert json.loads(before.splitlines()[0])["version"] == 1
