"""`--remove` lists what it removes, asks before it deletes runs, and says what stays and why."""

from __future__ import annotations

import json
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from echo_endpoint import KEY, echo_endpoint
from loopback import JsonHandler, running
from phi3_ops import paths
from phi3_ops.files.ownership import record_files
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.quickstart import removal
from phi3_ops.quickstart.removal import remove_quickstart, runs_of
from phi3_ops.runs.evaluation import ask_and_score
from registered_endpoint import registered_endpoint


@pytest.fixture(autouse=True)
def no_service(monkeypatch):
    monkeypatch.setattr(removal, "SERVICE_URL", "http://127.0.0.1:1/heartbeat")


@pytest.fixture
def workdir(tmp_path):
    workdir = tmp_path / "work"
    record_files(workdir, ["summary.json"])
    return workdir


@pytest.fixture
def runs(workdir):
    """Two runs over data of the workdir: answers and their scores."""
    data = workdir / "questions.jsonl"
    data.write_text(json.dumps({"question": "right", "ground_truth": "right"}) + "\n")
    record_files(workdir, [data.name])
    with echo_endpoint() as server:
        save_connection("removal", {"endpoint": server.url, "contract": "chat"}, KEY)
        batches = ask_and_score(data, title="quickstart-base", connection="removal")
        delete_connection("removal")
    return [batch.name for batch in batches]


def test_the_runs_are_deleted_after_a_yes(workdir, runs):
    questions = []

    def confirm(question):
        questions.append(question)
        return True

    lines = remove_quickstart(workdir, confirm)
    asked, scored = runs
    count = f"2 runs over data of {workdir}"
    assert questions == [f"Delete {count} with all answers, from {asked} to {scored}?"]
    assert lines == [f"deleted {count}", f"deleted {workdir}"]
    assert find_stored_run(asked) is None and find_stored_run(scored) is None


def test_without_a_yes_the_runs_stay_and_can_be_deleted_later(workdir, runs):
    lines = remove_quickstart(workdir, lambda question: False)
    command = f"phi3 quickstart --remove --yes --workdir {workdir}"
    assert lines == [
        f"kept 2 runs over data of {workdir}: you did not confirm; `{command}` deletes them",
        f"deleted {workdir}",
    ]
    assert [run.name for run in runs_of(workdir)] == runs[::-1]
    later = remove_quickstart(workdir, lambda question: True)
    assert later == [f"deleted 2 runs over data of {workdir}"]
    missing = f"{workdir} does not exist, so it contains nothing to remove"
    assert remove_quickstart(workdir, pytest.fail) == [missing]


def test_runs_over_other_data_stay(workdir, runs, tmp_path):
    assert runs_of(tmp_path / "other") == []
    assert runs_of(paths.FLOWS) == []


def test_every_endpoint_of_the_workdir_is_stopped(workdir):
    """Also one that the user started there, and one of a quickstart that was killed."""
    with registered_endpoint(workdir, "own"), registered_endpoint(workdir, "base"):
        lines = remove_quickstart(workdir, pytest.fail)
    assert {"stopped the endpoint 'base'", "stopped the endpoint 'own'"} <= set(lines)
    assert not workdir.exists()


def test_other_quickstarts_beside_it_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".phi3", ".phi3-mine"):
        record_files(Path(name), ["summary.json"])
    Path(".phi3-notes").mkdir()
    command = "phi3 quickstart --remove --workdir .phi3-mine"
    other = f"kept .phi3-mine, which belongs to another quickstart; `{command}` removes it"
    assert remove_quickstart(Path(".phi3"), pytest.fail) == ["deleted .phi3", other]
    assert remove_quickstart(Path(".phi3"), pytest.fail)[1:] == [other]
    assert remove_quickstart(Path(".phi3-mine"), pytest.fail) == ["deleted .phi3-mine"]


class _Service(JsonHandler):
    def do_GET(self):
        self.answer(200, {"promptflow": "1.18.5"})


def test_the_service_of_prompt_flow_stays_and_is_named(workdir, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server, running(server):
        url = f"http://127.0.0.1:{server.server_port}/heartbeat"
        monkeypatch.setattr(removal, "SERVICE_URL", url)
        lines = remove_quickstart(workdir, pytest.fail)
    begin = f"kept Prompt flow's service on port {server.server_port}: "
    (line,) = [line for line in lines if line.startswith(begin)]
    assert "`pf service stop` stops it" in line
