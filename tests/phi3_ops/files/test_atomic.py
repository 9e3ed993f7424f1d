"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.files import atomic
from phi3_ops.files.json_files import write_json


def test_a_file_appears_completely_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    target.parent.mkdir()
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic.atomic_file(target) as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_the_error_names_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})


def write_folder(folder, last="last"):
    with atomic.atomic_folder(folder, last=last) as staging:
        for name in ("a", last):
            (staging / name).write_text("new")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_changes_completely(tmp_path):
    write_folder(tmp_path / "deep" / "folder")
    assert contents(tmp_path / "deep" / "folder") == {"a": "new", "last": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_folder_is_not_created_on_an_error(tmp_path):
    with (
        pytest.raises(RuntimeError),
        atomic.atomic_folder(tmp_path / "folder", last="x") as staging,
    ):
        (staging / "a").write_text("new")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing_move", range(5))
def test_earlier_files_return_when_a_move_fails(tmp_path, monkeypatch, failing_move):
    """Two earlier files move out, the last one first; then the new files move in, the last one last."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "last", "other"):
        (folder / name).write_text("old")
    moves = []
    replace = atomic.os.replace

    def fail(old, new):
        moves.append((old.parent.name, new.name))
        if len(moves) == failing_move + 1:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(atomic.os, "replace", fail)
    if failing_move < 4:
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder)
        assert contents(folder) == {"a": "old", "last": "old", "other": "old"}
    else:
        write_folder(folder)
        assert contents(folder) == {"a": "new", "last": "new", "other": "old"}
        assert [name for _, name in moves] == ["last", "a", "a", "last"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_folder_appears_when_it_is_complete(tmp_path, exists):
    target = tmp_path / "deep" / "target"
    if exists:
        target.mkdir(parents=True)
    with atomic.new_folder(target) as staging:
        staging.mkdir()
        (staging / "a").write_text("a")
        assert not target.exists() or not list(target.iterdir())
    assert [path.name for path in target.iterdir()] == ["a"]
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_there_is_no_new_folder(tmp_path):
    with pytest.raises(RuntimeError), atomic.new_folder(tmp_path / "target") as staging:
        staging.mkdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(OpsError, match="is not empty"), atomic.new_folder(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# -- killed processes ------------------------------------------------------------------------------

KILL = """
import os, signal, sys
from pathlib import Path
from phi3_ops.files import atomic
from phi3_ops.files.json_files import write_json

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

kind, target, moves = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
replace = os.replace

def count(old, new):
    global moves
    moves -= 1
    if moves < 0:
        kill()
    replace(old, new)

atomic.os.replace = count
if kind == "file":
    with atomic.atomic_file(target) as file:
        file.write("half")
        file.flush()
        kill()
elif kind == "new_folder":
    with atomic.new_folder(target) as staging:
        staging.mkdir()
        (staging / "a").write_text("half")
        kill()
else:
    with atomic.atomic_folder(target, last="last") as staging:
        for name in ("a", "added", "last"):
            (staging / name).write_text("half")
        (staging / "tree").mkdir()
        (staging / "tree" / "leaf").write_text("half")
        if kind == "content":
            kill()
"""


def run_killed(kind, target, moves=99):
    command = [sys.executable, "-c", KILL, kind, str(target), str(moves)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


def test_temporary_files_of_killed_processes_are_deleted(tmp_path):
    target = tmp_path / "file.txt"
    for _ in range(3):
        run_killed("file", target)
    mine = tmp_path / ".file.txt.phi3-mine"
    other = tmp_path / ".other.txt.phi3-01234567"
    mine.write_text("")
    other.write_text("")
    assert len(list(tmp_path.iterdir())) == 3  # each run deletes the file of the previous one
    with atomic.atomic_file(target) as file:
        file.write("new")
        with atomic.atomic_file(target) as second:  # the first one's file is in use
            second.write("second")
    assert target.read_text() == "new"
    assert {*tmp_path.iterdir()} == {target, mine, other}


def test_a_link_with_the_name_of_a_temporary_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("text")
    (tmp_path / ".file.txt.phi3-01234567").symlink_to(victim)
    with atomic.atomic_file(tmp_path / "file.txt") as file:
        file.write("new")
    assert victim.read_text() == "text"
    assert (tmp_path / ".file.txt.phi3-01234567").is_symlink()


@pytest.mark.finding(
    4,
    "`phi3 data` is killed while it writes",
    "the next run deletes the temporary folder, and only folders with the marker of this product",
)
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("kind", ["content", "new_folder"])
def test_temporary_folders_of_killed_processes_are_deleted(tmp_path, kind, exists):
    target = tmp_path / "target"
    if exists:
        target.mkdir()
    for _ in range(3):
        run_killed(kind, target)
    assert len(list(tmp_path.rglob(atomic.OWNER_FILE))) == 1  # that of the last run
    (tmp_path / ".new-users").mkdir()
    (tmp_path / ".new-users" / "file").write_text("of the user")
    write_folder(target)
    assert contents(target) == {"a": "new", "last": "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"target", ".new-users"}


def test_the_temporary_folder_of_a_running_process_stays(tmp_path):
    with atomic.atomic_folder(tmp_path / "one", last="a") as staging:
        (staging / "a").write_text("one")
        write_folder(tmp_path / "two")
    assert contents(tmp_path / "one") == {"a": "one"}


def test_a_folder_with_a_forged_owner_file_is_not_deleted(tmp_path):
    (tmp_path / ".new-forged").mkdir()
    owner = tmp_path / ".new-forged" / atomic.OWNER_FILE
    owner.write_text("something else")
    (tmp_path / ".new-linked").mkdir()
    (tmp_path / ".new-linked" / atomic.OWNER_FILE).symlink_to(owner)
    write_folder(tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {".new-forged", ".new-linked", "folder"}


@pytest.mark.parametrize("names", ["../victim\n.\n", "victim\n", "victim"])
def test_names_in_an_owner_file_cannot_lead_elsewhere(tmp_path, names):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    staging = folder / ".new-forged"
    (staging / "content").mkdir(parents=True)
    (staging / "content" / "x").write_text("")
    for path in (victim, folder / "victim"):
        path.write_text("text")
    (staging / atomic.OWNER_FILE).write_text(f"{atomic._OWNER_HEADER}x\n{names}")
    write_folder(folder)
    assert victim.read_text() == (folder / "victim").read_text() == "text"


@pytest.mark.parametrize("moves", range(7))
def test_earlier_files_return_after_a_killed_move(tmp_path, moves):
    """Three earlier files move out, then four new ones move in; the process is killed before a move."""
    folder = tmp_path / "folder"
    (folder / "tree").mkdir(parents=True)
    for path in (folder / "a", folder / "last", folder / "other", folder / "tree" / "old"):
        path.write_text("old")
    run_killed("moves", folder, moves)
    with atomic.atomic_folder(folder, last="new") as staging:
        (staging / "new").write_text("new")
    assert {path.name for path in folder.iterdir()} == {"a", "last", "other", "tree", "new"}
    assert [path.name for path in (folder / "tree").iterdir()] == ["old"]
    assert {(folder / name).read_text() for name in ("a", "last", "other")} == {"old"}


# -- permissions -----------------------------------------------------------------------------------


@pytest.mark.finding(
    4,
    "a user has a strict umask",
    "every file that is not secret has the permissions of the umask",
)
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_new_files_have_the_permissions_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "deep" / "file.json", {})
        with atomic.atomic_folder(tmp_path / "folder", last="a") as staging:
            write_json(staging / "a", {})
        with atomic.new_folder(tmp_path / "new") as staging:
            staging.mkdir()
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_an_existing_file_keeps_its_permissions(tmp_path):
    target = tmp_path / "file.json"
    target.write_text("")
    for mode in (0o600, 0o664):
        target.chmod(mode)
        write_json(target, {})
        assert stat.S_IMODE(target.stat().st_mode) == mode
