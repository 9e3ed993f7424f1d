"""Markers: only files that this product wrote are replaced or removed."""

from __future__ import annotations

import json
import re
import threading

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.files.ownership import (
    MARKER_FILE,
    Marker,
    begin_writing,
    finish_writing,
    read_marker,
    record_connection,
    record_files,
    refuse_foreign_files,
    remove_own_files,
    require_own_folder,
)

CACHES = re.compile(r"openvino-.*")


def write(folder, *names):
    """Write files, and return their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return names


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- marker ------------------------------------------------------------------------------------------


def test_a_marker_has_an_id_that_stays(tmp_path):
    record_files(tmp_path / "new" / "work", ["a"])
    first = read_marker(tmp_path / "new" / "work")
    assert re.fullmatch("[0-9a-f]{32}", first.id) and first.files == {"a"}
    record_files(tmp_path / "new" / "work", ["b"])
    record_connection(tmp_path / "new" / "work", "phi3", "http://127.0.0.1:9/score")
    second = read_marker(tmp_path / "new" / "work")
    assert second.id == first.id and second.files == {"a", "b"}
    assert second.connections == {"phi3": "http://127.0.0.1:9/score"}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "me"},
        {"made by": "you"},
        {"files": ["../x"]},
        {"files": ["/etc/passwd"]},
        {"files": ["a/../../x"]},
        {"files": ["a\\..\\..\\x"]},
        {"files": ["C:x"]},
        {"files": ["a//b"]},
        {"files": ["."]},
        {"files": [3]},
        {"files": None},
        {"folders": [".."]},
        {"unfinished": [".."]},
        {"unfinished": [""]},
        {"unfinished": ["link/folder"]},
        {"connections": {"phi3": None}},
        {"connections": []},
    ],
)
def test_a_forged_marker_is_not_a_marker(tmp_path, change):
    content = Marker(files=frozenset({"a"})).to_json()
    (tmp_path / MARKER_FILE).write_text(json.dumps(content))
    assert read_marker(tmp_path)
    (tmp_path / MARKER_FILE).write_text(json.dumps({**content, **change}))
    assert read_marker(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "\xff", "[" * 5000])
def test_another_file_of_that_name_is_not_a_marker(tmp_path, text):
    (tmp_path / MARKER_FILE).write_text(text, encoding="latin-1")
    assert read_marker(tmp_path) is None


def test_a_link_is_not_a_marker(tmp_path):
    record_files(tmp_path / "other", ["a"])
    (tmp_path / MARKER_FILE).symlink_to(tmp_path / "other" / MARKER_FILE)
    assert read_marker(tmp_path) is None


def test_commands_at_the_same_time_lose_no_entry(tmp_path):
    threads = [
        threading.Thread(target=record_files, args=(tmp_path, [f"f{number}"]))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_marker(tmp_path).files == {f"f{number}" for number in range(20)}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OpsError, match="cannot write .*file"):
        record_files(tmp_path / "file", ["a"])


# -- replacing ---------------------------------------------------------------------------------------


def test_a_file_that_the_marker_does_not_list_is_not_replaced(tmp_path):
    record_files(tmp_path, write(tmp_path, "mine"))
    write(tmp_path, "theirs")
    refuse_foreign_files(tmp_path, ["mine", "none"])
    with pytest.raises(OpsError, match="theirs exists, and phi3 did not write it"):
        refuse_foreign_files(tmp_path, ["mine", "theirs"])


def test_a_foreign_file_in_a_folder_of_ours_is_not_replaced(tmp_path):
    write(tmp_path, "model/a", "model/deep/b")
    finish_writing(tmp_path, ["model"])
    write(tmp_path, "model/openvino-fp32-1/c")
    refuse_foreign_files(tmp_path, ["model"], CACHES)
    write(tmp_path, "model/deep/notes.txt")
    with pytest.raises(OpsError, match="notes.txt exists, and phi3 did not write it"):
        refuse_foreign_files(tmp_path, ["model"], CACHES)


def test_a_foreign_link_is_not_replaced(tmp_path):
    (tmp_path / "model").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OpsError, match="model exists, and phi3 did not write it"):
        refuse_foreign_files(tmp_path, ["model"])


def test_the_files_of_a_killed_command_are_ours(tmp_path):
    begin_writing(tmp_path, ["model"])
    write(tmp_path, "model/half")
    refuse_foreign_files(tmp_path, ["model"])
    assert remove_own_files(tmp_path) == [] and not tmp_path.exists()


def test_finishing_replaces_the_list_of_these_names_only(tmp_path):
    record_files(tmp_path, write(tmp_path, "a"))
    begin_writing(tmp_path, ["model"])
    write(tmp_path, "model/old")
    finish_writing(tmp_path, ["model"])
    (tmp_path / "model" / "old").rename(tmp_path / "model" / "new")
    finish_writing(tmp_path, ["model"])
    marker = read_marker(tmp_path)
    assert marker.files == {"a", "model/new"} and not marker.unfinished


# -- removing ----------------------------------------------------------------------------------------


def test_only_listed_files_are_removed(tmp_path):
    work = tmp_path / "work"
    write(work, "model/a", "model/deep/b", "summary.json")
    finish_writing(work, ["model", "summary.json"])
    write(work, "notes.txt", "model/notes.txt", "model/openvino-fp32-1/c")
    left = remove_own_files(work, CACHES)
    assert left == [work / "model" / "notes.txt", work / "notes.txt"]
    assert names_in(work) == {"notes.txt", "model/notes.txt"}


def test_an_empty_folder_is_removed(tmp_path):
    work = tmp_path / "work"
    record_files(work, write(work, "a", "b/c"))
    assert remove_own_files(work) == [] and not work.exists()


def test_folders_that_were_made_empty_are_removed(tmp_path):
    work = tmp_path / "work"
    (work / "mlruns" / ".trash").mkdir(parents=True)
    finish_writing(work, ["mlruns"])
    assert read_marker(work).folders == {"mlruns", "mlruns/.trash"}
    write(work, "theirs/x", "mlruns/.trash/theirs")
    (work / "empty").mkdir()
    assert len(remove_own_files(work)) == 2
    assert names_in(work) == {"theirs/x", "mlruns/.trash/theirs"} and (work / "empty").is_dir()


def test_without_a_marker_nothing_is_removed(tmp_path):
    write(tmp_path, "manifest.json")
    assert remove_own_files(tmp_path) == [tmp_path / "manifest.json"]
    assert names_in(tmp_path) == {"manifest.json"}


def test_links_are_not_followed(tmp_path):
    work, other = tmp_path / "work", tmp_path / "other"
    record_files(work, [*write(work, "a"), "link", "folder/b", "folder/deep/b"])
    write(other, "b", "deep/b")
    (work / "link").symlink_to(other)
    (work / "folder").symlink_to(other)
    assert remove_own_files(work) == [work / "folder"]
    assert names_in(other) == {"b", "deep/b"}


@pytest.mark.finding(
    1,
    "a forged marker names a folder behind a link as unfinished",
    "the file is not taken for a marker, and nothing is removed",
)
def test_an_unfinished_folder_behind_a_link_is_not_removed(tmp_path):
    work, other = tmp_path / "work", tmp_path / "other"
    record_files(work, write(work, "a"))
    write(other, "folder/mine")
    (work / "link").symlink_to(other)
    marker = json.loads((work / MARKER_FILE).read_text())
    (work / MARKER_FILE).write_text(json.dumps({**marker, "unfinished": ["link/folder"]}))
    remove_own_files(work)
    assert names_in(other) == {"folder/mine"}
    assert (work / "a").exists()


def test_a_folder_of_its_own_is_allowed(tmp_path):
    require_own_folder(tmp_path / "new")
    (tmp_path / "work").mkdir()
    require_own_folder(tmp_path / "work")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("here", "is the current folder"),
        (".", "contains the current folder"),
        ("home", "is the home folder"),
        ("project", "contains .git"),
        ("link", "is a link"),
        ("dangling", "is a link"),
    ],
)
def test_a_folder_that_is_more_is_refused(tmp_path, monkeypatch, name, message):
    for folder in ("here", "home", "project/.git", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "work")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(OpsError, match=message):
        require_own_folder(tmp_path / name)


def test_the_current_folder_in_other_words_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    for text in (".", "..", "x/..", str(tmp_path), "/"):
        with pytest.raises(OpsError, match="current folder"):
            require_own_folder(Path(text))
