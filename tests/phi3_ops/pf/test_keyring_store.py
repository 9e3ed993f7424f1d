"""The keyring for machines without one: a file that only its owner can read, or the environment."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
from keyring.errors import PasswordDeleteError, PasswordSetError

from phi3_ops.pf import keyring_store
from phi3_ops.pf.keyring_store import FILE_NAME, LOCK_NAME, OwnerOnlyFileKeyring


@pytest.fixture
def ring(tmp_path, monkeypatch):
    monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path / "store"))
    return OwnerOnlyFileKeyring()


def test_passwords_are_kept_and_deleted(ring):
    assert ring.get_password("promptflow", "key") is None
    ring.set_password("promptflow", "key", "one")
    ring.set_password("promptflow", "other", "two")
    ring.set_password("promptflow", "key", "three")
    assert ring.get_password("promptflow", "key") == "three"
    ring.delete_password("promptflow", "key")
    assert ring.get_password("promptflow", "key") is None
    assert ring.get_password("promptflow", "other") == "two"
    with pytest.raises(PasswordDeleteError):
        ring.delete_password("promptflow", "key")


def test_only_the_owner_can_read_the_file(ring):
    ring.set_password("promptflow", "key", "one")
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.path.parent.stat().st_mode) == 0o700
    assert_only_store_files(ring)


def assert_only_store_files(ring):
    files = {path.name: path.stat() for path in ring.path.parent.iterdir()}
    assert {*files} == {FILE_NAME, LOCK_NAME}
    assert {stat.S_IMODE(status.st_mode) for status in files.values()} == {0o600}
    assert files[LOCK_NAME].st_size == 0


def test_a_file_that_others_could_read_is_replaced(ring):
    ring.set_password("promptflow", "key", "one")
    ring.path.chmod(0o644)
    ring.set_password("promptflow", "other", "two")
    assert_only_store_files(ring)


def test_the_mode_of_an_existing_folder_stays(ring):
    ring.path.parent.mkdir(mode=0o755)
    ring.set_password("promptflow", "key", "one")
    assert stat.S_IMODE(ring.path.parent.stat().st_mode) == 0o755


def write_entries(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, **options)


@pytest.mark.finding(
    4,
    "two processes write keyring entries at the same time",
    "a lock surrounds each change, and no entry is lost",
)
def test_no_entry_is_lost_between_two_processes(ring):
    code = """
import sys
from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring
for number in range(100):
    OwnerOnlyFileKeyring().set_password("service", f"{sys.argv[1]}-{number}", "secret")
"""
    writers = [write_entries(code, name) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(json.loads(ring.path.read_text())) == 200
    assert_only_store_files(ring)


@pytest.mark.finding(
    4,
    "a process is killed while it writes the keyring file",
    "the next write deletes the temporary file",
)
def test_the_temporary_file_of_a_killed_process_is_deleted(ring):
    code = """
import os, signal
from phi3_ops.pf import keyring_store
keyring_store.os.replace = lambda old, new: os.kill(os.getpid(), signal.SIGKILL)
keyring_store.OwnerOnlyFileKeyring().set_password("promptflow", "key", "secret")
"""
    (ring.path.parent).mkdir()
    (ring.path.parent / f"{FILE_NAME}.backup").write_text("of the user")
    assert write_entries(code).wait() == -signal.SIGKILL
    assert len(list(ring.path.parent.glob(f"{FILE_NAME}????????"))) == 1
    ring.set_password("promptflow", "key", "new")
    assert ring.get_password("promptflow", "key") == "new"
    (ring.path.parent / f"{FILE_NAME}.backup").unlink()
    assert_only_store_files(ring)


@pytest.mark.finding(
    4,
    "the disk is full while the keyring file is written",
    "the temporary file is deleted, and the old file stays",
)
def test_a_full_disk_leaves_no_temporary_file(ring, monkeypatch):
    ring.set_password("promptflow", "key", "old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keyring_store.os, "fsync", fail)
    with pytest.raises(PasswordSetError, match="No space left on device"):
        ring.set_password("promptflow", "key", "new")
    with pytest.raises(PasswordDeleteError, match="No space left on device"):
        ring.delete_password("promptflow", "key")
    assert ring.get_password("promptflow", "key") == "old"
    assert_only_store_files(ring)


def test_the_environment_wins_and_is_read_only(ring, monkeypatch):
    ring.set_password("promptflow", "key", "file")
    monkeypatch.setenv("PHI3_KEYRING", json.dumps({"promptflow/key": "environment"}))
    assert ring.get_password("promptflow", "key") == "environment"
    with pytest.raises(PasswordSetError):
        ring.set_password("promptflow", "key", "new")
    with pytest.raises(PasswordDeleteError):
        ring.delete_password("promptflow", "key")


def test_keyring_uses_it_if_there_is_no_other(tmp_path):
    code = "import keyring; print(type(keyring.get_keyring()).__name__)"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "OwnerOnlyFileKeyring", done.stderr


def test_every_real_keyring_outranks_it():
    from keyring.backends import fail

    # Real ones have 1 or more (keyring's "recommended"); the one that only fails has 0.
    assert fail.Keyring.priority < OwnerOnlyFileKeyring.priority < 1
