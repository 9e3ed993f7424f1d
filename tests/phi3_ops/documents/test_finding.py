"""Which files of a folder are read."""

import os

import pytest

from phi3_ops.documents.finding import SkippedFile, find_documents
from phi3_ops.errors import OpsError
from phi3_ops.files import record_files


def test_documents_are_found_and_other_files_are_listed(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.MD", "sub/a.pdf", ".hidden.md", "picture.png"):
        (tmp_path / name).write_text("x")
    found, skipped = find_documents(tmp_path)
    assert [file.name for file in found] == ["b.MD", "sub/a.pdf"]
    assert skipped == [SkippedFile("picture.png", "its format is not supported")]


def test_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    (folder / "loop").symlink_to(folder)
    (folder / "other").symlink_to(outside)
    (folder / "secret.txt").symlink_to(outside / "secret.txt")
    (folder / "broken.txt").symlink_to(folder / "gone")
    (folder / "itself").symlink_to(folder / "itself")
    found, skipped = find_documents(folder)
    assert [file.name for file in found] == ["a.txt"]
    reason = "it is a link; links are not followed"
    names = ["broken.txt", "itself", "loop", "other", "secret.txt"]
    assert skipped == [SkippedFile(name, reason) for name in names]


def test_pipes_and_strange_names(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    found, skipped = find_documents(tmp_path)
    assert [file.name for file in found] == ["caf\ufffd.txt"]
    assert skipped == [SkippedFile("pipe.txt", "it is not a regular file")]


def test_files_of_the_command_itself_are_left_out(tmp_path):
    for name in ("a.txt", "rows.html"):
        (tmp_path / name).write_text("x")
    found, skipped = find_documents(tmp_path, [tmp_path / "rows.html"])
    assert ([file.name for file in found], skipped) == (["a.txt"], [])


def test_files_that_phi3_wrote_are_left_out(tmp_path):
    for name in ("a.txt", "rows.html", "other.html"):
        (tmp_path / name).write_text("x")
    record_files(tmp_path, ["rows.html"])
    found, skipped = find_documents(tmp_path)
    assert ([file.name for file in found], skipped) == (["a.txt", "other.html"], [])


def test_one_document_instead_of_a_folder(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    found, skipped = find_documents(tmp_path / "a.txt")
    assert ([file.name for file in found], skipped) == (["a.txt"], [])


def test_a_folder_without_documents_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(OpsError, match=r"no document \(a.png: its format is not supported\)"):
        find_documents(tmp_path)
    with pytest.raises(OpsError, match="gone does not exist"):
        find_documents(tmp_path / "gone")
