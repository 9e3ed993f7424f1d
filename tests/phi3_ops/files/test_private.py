"""Private folders: made for this user alone, and refused if others can open them."""

from __future__ import annotations

import os
import stat

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.files.private import private_folder


def test_a_folder_is_made_for_this_user_alone(tmp_path):
    path = tmp_path / "a" / "b"
    for _ in range(2):
        assert private_folder(path, "") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def open_to_others(path):
    path.mkdir()
    path.chmod(0o750)


def link(path):
    target = path.with_name("elsewhere")
    target.mkdir(mode=0o700)
    path.symlink_to(target)


@pytest.mark.parametrize("make", [open_to_others, link, lambda path: path.touch()])
def test_what_others_can_open_is_refused(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OpsError, match="is not a folder that only you can open. Do this"):
        private_folder(tmp_path / "a", "Do this.")


def test_the_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    private_folder(tmp_path / "a", "")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(OpsError, match="only you"):
        private_folder(tmp_path / "a", "")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OpsError, match="cannot create .*: "):
        private_folder(tmp_path / "a" / "b", "")
