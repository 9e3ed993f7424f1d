"""Where the uploaded code, the flows and the shipped data are."""

from __future__ import annotations

from phi3_ops import paths


def test_the_shipped_files_exist():
    assert (paths.FLOWS / "flows.lock.json").is_file()
    assert (paths.TRAINING / "train.py").is_file()
    assert (paths.SERVING / "score.py").is_file()
    assert (paths.AZURE / "job.yml").is_file()
    assert paths.SAMPLE_DATA.is_file()


def test_the_workdir_is_relative_to_where_the_command_runs():
    assert not paths.WORKDIR.is_absolute()
