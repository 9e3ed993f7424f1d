"""The keyring for machines without one: a file that only its owner can read, or the environment."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest
from keyring.errors import PasswordDeleteError, PasswordSetError

from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring


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
    assert [path.name for path in ring.path.parent.iterdir()] == [ring.path.name]


def test_the_environment_wins_and_is_read_only(ring, monkeypatch):
    ring.set_password("promptflow", "key", "file")
    monkeypatch.setenv("PHI3_KEYRING", json.dumps({"promptflow/key": "environment"}))
    assert ring.get_password("promptflow", "key") == "environment"
    with pytest.raises(PasswordSetError):
        ring.set_password("promptflow", "key", "new")


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
