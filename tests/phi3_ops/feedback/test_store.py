"""The store of feedback: nothing that was acknowledged is lost, and nothing of others is touched."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from feedback_records import feedback
from phi3_ops.errors import OpsError
from phi3_ops.feedback.records import HistoryMessage
from phi3_ops.feedback.store import (
    APPLICATION_ID,
    VERSION,
    ConflictError,
    FeedbackStore,
    StoreFullError,
    default_store,
)
from phi3_ops.pf.own_runs import own_runs_folder

HANG_S = 60


@pytest.fixture
def store(tmp_path):
    store = FeedbackStore(tmp_path / "folder" / "feedback.sqlite")
    store.create()
    return store


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_default_store_is_next_to_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    assert default_store() == own_runs_folder().with_name("feedback.sqlite")
    FeedbackStore(default_store()).create()
    assert (mode(tmp_path / "home"), mode(default_store())) == (0o700, 0o600)


def test_records_come_back_as_they_were_in_their_order(store):
    history = (HistoryMessage("user", "Hi\0 <b>ü</b>"), HistoryMessage("assistant", "🙂"))
    edit = feedback(id="f2", kind="edit", edited="Paris!\0", history=history, who=None, turn=2)
    assert store.add(edit) and store.add(feedback(time="2020-01-01T00:00:00.000+00:00"))
    assert store.records() == [edit, feedback(time="2020-01-01T00:00:00.000+00:00")]


def test_filters(store):
    times = [f"2026-11-2{day}T00:00:00.000+00:00" for day in range(3)]
    first, second, third = (
        feedback(id="a", time=times[0], flow="qa"),
        feedback(id="b", time=times[1], kind="thumbs_down"),
        feedback(id="c", time=times[2], conversation="c2"),
    )
    for record in (first, second, third):
        store.add(record)
    assert store.records(flow="qa") == [first]
    assert store.records(kind="thumbs_down") == [second]
    assert store.records(conversation="c2") == [third]
    assert store.records(since=times[1]) == [second, third]
    assert store.records(since=times[1], kind="thumbs_up", flow="chat") == [third]
    assert store.records(flow="'; DROP TABLE feedback; --") == []


def test_the_same_feedback_sent_again_is_stored_once(store):
    assert store.add(feedback())
    assert not store.add(feedback(time="2026-11-26T18:00:00.000+00:00"))
    with pytest.raises(ConflictError, match="other feedback with the id f1 is already stored"):
        store.add(feedback(kind="thumbs_down"))
    assert store.records() == [feedback()]


def test_records_cannot_be_changed(store):
    store.add(feedback())
    database = sqlite3.connect(store.file)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute("UPDATE feedback SET answer = 'London.'")
    database.close()


def test_a_deleted_conversation_leaves_no_text_in_the_file(store):
    store.add(feedback(answer="my-secret-address " * 500))
    kept = feedback(id="f2", conversation="c2")
    store.add(kept)
    assert b"my-secret-address" in store.file.read_bytes()
    assert store.delete_conversation("c1") == (1, True)
    assert store.delete_conversation("unknown") == (0, True)
    assert store.records() == [kept]
    for file in store.file.parent.iterdir():
        assert b"my-secret-address" not in file.read_bytes()


def test_texts_that_another_process_reads_stay_until_it_has_ended(store, monkeypatch):
    monkeypatch.setattr("phi3_ops.feedback.store.TIMEOUT_S", 0.05)
    store.add(feedback(answer="my-secret-address " * 500))
    reader = sqlite3.connect(f"{store.file.as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM feedback").fetchall()
    assert store.delete_conversation("c1") == (1, False)
    reader.close()
    store.add(feedback(id="f2", conversation="c2"))
    for file in store.file.parent.iterdir():
        assert b"my-secret-address" not in file.read_bytes()


def test_files_are_for_their_owner_only(store):
    reader = sqlite3.connect(store.file)
    reader.execute("SELECT * FROM feedback").fetchall()
    store.add(feedback())  # the log of the database stays while the reader is open
    files = {file.name: mode(file) for file in store.file.parent.iterdir()}
    reader.close()
    assert {"feedback.sqlite", "feedback.sqlite-wal"} <= set(files)
    assert set(files.values()) == {0o600}
    assert mode(store.file.parent) == 0o700


def test_a_store_that_others_can_open_is_refused(store):
    store.file.chmod(0o644)
    with pytest.raises(OpsError, match="other users can open .* Run chmod 600"):
        store.create()


# -- several processes, and a process that is killed -------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from feedback_records import feedback
from phi3_ops.feedback.store import FeedbackStore
store = FeedbackStore(Path(sys.argv[1]))
store.create()
for number in range(int(sys.argv[3])):
    store.add(feedback(id=f"{sys.argv[2]}{number}"))
    print(f"{sys.argv[2]}{number}", flush=True)
"""


def writer(file, prefix, count):
    support = os.path.dirname(sys.modules["feedback_records"].__file__)
    code = f"import sys; sys.path.insert(0, {support!r})\n{WRITER}"
    command = [sys.executable, "-c", code, str(file), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_acknowledged_records_survive_a_kill(tmp_path):
    file = tmp_path / "feedback.sqlite"
    acknowledged = []
    for attempt in ("a", "b", "c"):
        process = writer(file, attempt, 1000)
        try:
            acknowledged += [process.stdout.readline().strip() for _ in range(3)]
        finally:
            process.kill()  # SIGKILL, in the middle of the next record
            rest, _ = process.communicate(timeout=HANG_S)
        acknowledged += rest.split()
        stored = [record.id for record in FeedbackStore(file).records()]
        assert [each for each in stored if each in acknowledged] == acknowledged
        # At most the record whose acknowledgement was cut off is there as well.
        assert len(stored) <= len(acknowledged) + len("abc")
    database = sqlite3.connect(file)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_processes_and_threads_write_at_once(tmp_path):
    file = tmp_path / "feedback.sqlite"
    processes = [writer(file, prefix, 10) for prefix in "xy"]
    store = FeedbackStore(file)
    store.create()
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(store.add, [feedback(id=f"t{n}") for n in range(20)]))
    for process in processes:
        process.communicate(timeout=HANG_S)
        assert process.returncode == 0
    ids = {record.id for record in store.records()}
    assert all(added) and len(ids) == 40


# -- files that are not a store of this version --------------------------------------------------------


def test_a_newer_store_is_refused_and_not_touched(store):
    store.add(feedback())
    database = sqlite3.connect(store.file)
    database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.commit()
    database.close()
    before = {file.name: file.read_bytes() for file in store.file.parent.iterdir()}
    uses = [store.create, store.records]
    uses += [lambda: store.add(feedback(id="f2")), lambda: store.delete_conversation("c1")]
    for use in uses:
        with pytest.raises(OpsError, match=f"has version {VERSION + 1}; this phi3 reads version 1"):
            use()
    after = {file.name: file.read_bytes() for file in store.file.parent.iterdir()}
    assert {name: after[name] for name in before} == before


def foreign_database(file):
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE other (x)")
    database.commit()
    database.close()


@pytest.mark.parametrize(
    "write",
    [
        foreign_database,
        lambda file: file.write_text("notes"),
        lambda file: file.write_text("notes " * 5000),
        lambda file: os.mkfifo(file, 0o600),
        lambda file: file.mkdir(mode=0o700),
    ],
    ids=["database", "short text", "long text", "pipe", "folder"],
)
def test_a_file_of_others_is_refused_and_not_touched(tmp_path, write):
    file = tmp_path / "other.sqlite"
    write(file)
    file.chmod(0o600)
    before = file.read_bytes() if file.is_file() else None
    store = FeedbackStore(file)
    for use in (store.create, store.records, lambda: store.add(feedback())):
        with pytest.raises(OpsError, match="is not a feedback store"):
            use()
    assert before is None or file.read_bytes() == before


def test_an_empty_file_of_a_killed_process_becomes_a_store(tmp_path):
    file = tmp_path / "feedback.sqlite"
    file.touch(mode=0o600)
    store = FeedbackStore(file)
    store.create()
    assert store.add(feedback())
    database = sqlite3.connect(file)
    pragmas = ("application_id", "user_version", "journal_mode")
    values = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    database.close()
    assert values == [APPLICATION_ID, VERSION, "wal"]


def test_a_store_that_does_not_exist_is_one_clear_line(tmp_path):
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    for use in (store.records, lambda: store.delete_conversation("c1")):
        with pytest.raises(OpsError, match="does not exist. Start phi3 serve with --feedback"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_one_clear_line(store):
    store.add(feedback())
    database = sqlite3.connect(store.file)
    database.execute("DROP TRIGGER feedback_is_append_only")
    database.execute("UPDATE feedback SET history = '{'")
    database.commit()
    database.close()
    with pytest.raises(OpsError, match=r"is damaged: history: is not JSON"):
        store.records()


def test_a_full_disk_is_one_clear_line_and_stores_nothing(store, monkeypatch):
    connect = sqlite3.connect

    def connect_to_full_disk(*args, **kw):
        database = connect(*args, **kw)
        if "mode=rw" in args[0]:
            database.execute("PRAGMA max_page_count = 1")  # SQLite's error is that of a full disk
        return database

    monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
    with pytest.raises(StoreFullError, match="the disk of the feedback store .* is full. Free"):
        store.add(feedback(answer="x" * 100_000))
    monkeypatch.undo()
    assert store.records() == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        OpsError, match="cannot create .*file: File exists. Give the path of another"
    ):
        FeedbackStore(tmp_path / "file" / "feedback.sqlite").create()
