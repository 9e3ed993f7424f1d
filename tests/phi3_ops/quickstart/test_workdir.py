"""The folder of a quickstart: one per data file, and ignored by Git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.files.ownership import remove_own_files
from phi3_ops.quickstart.workdir import default_workdir, ignore_in_git


@pytest.mark.parametrize(
    ("source", "workdir"),
    [
        (paths.SAMPLE_DATA, ".phi3"),
        ("mine.csv", ".phi3-mine"),
        ("data/Our FAQ (2026).parquet", ".phi3-our-faq-2026"),
        ("..csv", ".phi3-data"),
        ("質問.csv", ".phi3-data"),
    ],
)
def test_each_data_file_has_its_own_folder(source, workdir):
    assert default_workdir(Path(source)) == Path(workdir)


def test_git_ignores_the_folder_and_a_removal_takes_the_file(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    work = tmp_path / ".phi3-mine"
    ignore_in_git(work)
    ignore_in_git(work)
    (work / "secret.jsonl").write_text("{}")
    command = ["git", "-C", tmp_path, "status", "--porcelain"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
    (work / "secret.jsonl").unlink()
    assert remove_own_files(work) == [] and not work.exists()


def test_a_file_of_the_user_is_kept(tmp_path):
    (tmp_path / ".gitignore").write_text("mine")
    ignore_in_git(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [".gitignore"]
