"""The first minutes: prepare the shipped data in an empty folder."""

from __future__ import annotations


def test_data_of_the_package_in_an_empty_folder(visitor):
    done = visitor.phi3("data")
    assert done.returncode == 0, done.stderr
    assert "480 rows to train, 120 to test" in done.stdout
    assert {path.name for path in visitor.folder.iterdir()} == {".phi3"}
    assert not visitor.processes()


def test_a_command_that_keeps_running_ends_with_ctrl_c(visitor, tiny_model_dir):
    endpoint = visitor.start("endpoint", "--port", "0", "--model", tiny_model_dir)
    endpoint.wait_for("/score")
    assert endpoint.press_ctrl_c() in (0, 130)
    assert not visitor.processes()
