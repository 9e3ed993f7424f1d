"""Two quickstarts in one folder at once: the second says so and stops."""

from __future__ import annotations

import pytest

from phi3_ops.cli import main
from phi3_ops.errors import OpsError
from phi3_ops.quickstart import runner
from phi3_ops.quickstart.lock import only_quickstart


def test_the_second_quickstart_of_a_folder_stops(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "steps_of", lambda job: pytest.fail("a step ran"))
    workdir = tmp_path / "work"
    with only_quickstart(workdir):
        for words in ([], ["--remove"]):
            runner.record_files(workdir, ["summary.json"])
            assert main(["quickstart", *words, "--workdir", str(workdir)]) == 1
            assert capsys.readouterr().err == (
                f"phi3 quickstart: a quickstart is already running in {workdir}. Wait for its end or "
                "stop it with Ctrl-C, or give another --workdir.\n"
            )
        assert workdir.exists()


def test_other_folders_are_free_and_the_lock_ends_with_the_block(tmp_path):
    with only_quickstart(tmp_path / "a"), only_quickstart(tmp_path / "b"):
        pass
    with only_quickstart(tmp_path / "a"):
        pass


def test_a_file_of_the_user_is_not_taken_as_a_lock(tmp_path):
    (tmp_path / ".quickstart.lock").write_text("mine")
    with (
        pytest.raises(OpsError, match="exists, and phi3 did not write it"),
        only_quickstart(tmp_path),
    ):
        pass
    assert (tmp_path / ".quickstart.lock").read_text() == "mine"
