"""The quickstart: what is refused, kept and restored. The journeys are in tests/journeys."""

from __future__ import annotations

import pytest
from rich.console import Console

from phi3_ops.cli import main
from phi3_ops.endpoint.registration import find_endpoint
from phi3_ops.files.ownership import record_connection
from phi3_ops.pf.connections import (
    connection_key,
    connection_url,
    delete_connection,
    save_connection,
)
from phi3_ops.quickstart import QuickstartOptions, runner
from phi3_ops.quickstart.connections import earlier_connection
from phi3_ops.runs import Batch, BatchInterrupted
from quickstart_folder import quickstart_folder
from registered_endpoint import registered_endpoint


def test_a_folder_of_other_files_is_not_removed(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["quickstart", "--remove", "--workdir", str(tmp_path)]) == 1
    assert "is not the folder of a quickstart. Nothing was removed" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").is_file()


# -- failures ------------------------------------------------------------------------------------------

URL, OTHER_URL = "http://127.0.0.1:9/score", "http://127.0.0.1:10/score"


def test_a_new_quickstart_deletes_the_summary_of_the_earlier_one(tmp_path, monkeypatch):
    """A run that fails must not leave the results of another model beside its own files."""
    workdir = quickstart_folder(tmp_path / "work")

    def fail(job):
        raise ValueError("no")

    monkeypatch.setattr(runner, "steps_of", lambda job: [("data", "Fail", fail)])
    options = QuickstartOptions(workdir=workdir, model="tiny")
    with registered_endpoint(workdir, "base"), registered_endpoint(workdir, "page"):
        with pytest.raises(ValueError):
            runner.run_quickstart(options, Console(quiet=True))
        assert not find_endpoint(workdir, "base") and not find_endpoint(workdir, "page")
    assert not (workdir / "summary.json").exists()


@pytest.mark.parametrize("earlier", [None, OTHER_URL])
def test_a_failing_quickstart_restores_the_connections(tmp_path, monkeypatch, capsys, earlier):
    """They pointed to endpoints that were stopped."""
    workdir = tmp_path / "work"
    if earlier:
        save_connection("phi3", {"endpoint": earlier}, "earlier-key")

    def serve_and_fail(job):
        job.started.add("tuned")
        job.earlier["tuned"] = earlier_connection(workdir, "phi3")
        record_connection(workdir, "phi3", URL)
        save_connection("phi3", {"endpoint": URL}, "key")
        raise ValueError("no")

    monkeypatch.setattr(runner, "steps_of", lambda job: [("serve", "Fail", serve_and_fail)])
    try:
        with pytest.raises(ValueError):
            options = QuickstartOptions(workdir=workdir, model="tiny")
            runner.run_quickstart(options, Console(quiet=True))
        assert connection_url("phi3") == earlier
        assert connection_key("phi3") == (earlier and "earlier-key")
    finally:
        delete_connection("phi3")
    done = "restored" if earlier else "deleted"
    assert f"{done} the connection 'phi3'" in capsys.readouterr().err


def test_an_interrupted_evaluation_ends_the_quickstart(tmp_path, monkeypatch, capsys):
    """Its endpoints are stopped, so the run cannot be resumed."""

    def interrupt(job):
        raise BatchInterrupted(Batch("run", {0: {}}, 3, not_asked=2))

    later = ("serve", "Serve", lambda job: pytest.fail("the next step ran"))
    monkeypatch.setattr(runner, "steps_of", lambda job: [("before", "Ask", interrupt), later])
    assert main(["quickstart", "--model", "tiny", "--workdir", str(tmp_path / "work")]) == 130
    assert capsys.readouterr().err == (
        "phi3: interrupted in step 1: 1 answered, 2 not asked; the same command starts again\n"
    )


# -- a workdir of others -----------------------------------------------------------------------------


@pytest.fixture
def no_steps(monkeypatch):
    monkeypatch.setattr(runner, "steps_of", lambda job: [])


def test_a_summary_of_others_is_not_replaced(tmp_path, no_steps, capsys):
    (tmp_path / "summary.json").write_text("mine")
    assert main(["quickstart", "--workdir", str(tmp_path)]) == 1
    assert "summary.json exists, and phi3 did not write it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_project_is_not_a_workdir(tmp_path, monkeypatch, no_steps, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", "--workdir", "."]) == 1
    assert "refusing to use .: it is the current folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["phi3", "phi3-base"])
def test_neither_connection_to_another_machine_is_replaced(tmp_path, no_steps, capsys, name):
    save_connection(name, {"endpoint": "https://prod.azure.com/score"}, "production")
    try:
        assert main(["quickstart", "--workdir", str(tmp_path / "w")]) == 1
    finally:
        delete_connection(name)
    assert f"the connection {name!r} points to another endpoint" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_failing_quickstart_leaves_an_endpoint_that_it_did_not_start(tmp_path, monkeypatch):
    def fail(job):
        raise ValueError("no")

    monkeypatch.setattr(runner, "steps_of", lambda job: [("data", "Fail", fail)])
    with registered_endpoint(tmp_path / "w") as process:
        options = QuickstartOptions(workdir=tmp_path / "w", model="tiny")
        with pytest.raises(ValueError):
            runner.run_quickstart(options, Console(quiet=True))
        assert find_endpoint(tmp_path / "w", "tuned").pid == process.pid
